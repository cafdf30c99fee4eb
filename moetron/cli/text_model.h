// The model that `generate` and `chat` draw from: loaded, divided among the ranks as the options
// say, with its tokenizer.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moetron/chat/encode.h"
#include "moetron/checkpoint/stored_model.h"
#include "moetron/config/options.h"
#include "moetron/generate/generate.h"
#include "moetron/generate/reader.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"
#include "moetron/run/run_spec.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {

class TextModel {
 public:
  // --load: a model's directory, or the newest checkpoint in a folder of them. bf16 on GPUs, fp32
  // on CPUs. Throws ConfigError and InputError. Collective.
  TextModel(const Options& options, Communicator& world, c10::Device device);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  TextReader& reader() { return *reader_; }
  int64_t longest_text() const { return spec_.model.max_position_embeddings; }  // tokens
  // Of the options, and the tokens that end a text of this model.
  const GenerateSettings& settings() const { return settings_; }
  // By the model's chat template, or the one that --chat-template names, with --thinking, or as the
  // model was fine-tuned; ConfigError without any.
  ChatEncoder chat_encoder() const;

 private:
  std::filesystem::path loaded_;  // what --load says: a model or an adapter
  std::filesystem::path folder_;  // of the model
  StoredModel stored_;            // of that folder
  std::string chat_template_;
  ThinkingChoice thinking_;  // that the options ask for
  std::shared_ptr<const Tokenizer> tokenizer_;
  RunSpec spec_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<TextReader> reader_;
  GenerateSettings settings_;
};

// A text as it comes, token by token, without the bytes of a character that is not complete yet.
class TextStream {
 public:
  using Take = std::function<void(std::string_view)>;
  TextStream(const Tokenizer& tokenizer, Take take)
      : tokenizer_(tokenizer), take_(std::move(take)) {}

  void add(int32_t token);
  void finish();  // with what was held back
  std::string text() const;

 private:
  void hand_on(const std::string& text);

  const Tokenizer& tokenizer_;
  Take take_;
  std::vector<int32_t> tokens_;
  size_t handed_on_ = 0;  // bytes
};

}  // namespace moetron
