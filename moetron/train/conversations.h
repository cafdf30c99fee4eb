// The conversations that a run fine-tunes on, and what it chose by them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "moetron/data/conversation_set.h"
#include "moetron/run/sft_choices.h"
#include "moetron/train/datasets.h"
#include "moetron/train/start.h"

namespace moetron {

// What the trained model is asked, and what the data answers.
struct SampleQuestion {
  std::vector<int32_t> prompt;  // tokens
  std::vector<int32_t> answer;
};

struct DescribedFile {
  std::string place;
  std::string content;  // told by what is in it
};

class Conversations {
 public:
  // `files`: described as they stand in data-path; `caches`: the folder of their caches.
  Conversations(std::shared_ptr<const ConversationSet> set, std::vector<DescribedFile> files,
                std::filesystem::path caches, SftChoices choices,
                std::shared_ptr<const Tokenizer> tokenizer);

  // Those of the run: given, or chosen.
  const Options& options() const { return choices_.options(); }
  const SftChoices& choices() const { return choices_; }
  const std::vector<DescribedFile>& files() const { return files_; }

  bool has_pairs() const { return set_->has_pairs(); }

  // Says what was chosen; `questions` (may be null) gets some.
  void introduce(std::vector<SampleQuestion>* questions) const;

  // As open_datasets(): packs for the samples that `counts` asks for, of which `first_sample` is
  // the first that will be read; global batches are laid out from there on. All held-out
  // conversations to validate on, or the first of them.
  TrainingData datasets(const RunSpec& spec, const SampleCounts& counts,
                        int64_t first_sample) const;

  // A conversation, or both sides of a pair, as the model sees it, with what is trained marked: in
  // colour, or in [[ and ]].
  std::string marked_sample(bool in_colour) const;
  // Of conversations that are held out; where none is, of those that are trained on.
  std::vector<SampleQuestion> questions(int64_t count) const;

 private:
  const char* noun() const { return has_pairs() ? " pairs" : " conversations"; }
  std::string places(const std::vector<int64_t>& conversations) const;
  std::string left_out() const;
  std::string marked(int64_t conversation, bool in_colour) const;

  std::shared_ptr<const ConversationSet> set_;
  std::vector<DescribedFile> files_;
  std::filesystem::path caches_;
  SftChoices choices_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  ConversationSplit split_;
};

// Opens the files of data-path as tokens: from their caches, or encoded by rank 0, which may take
// its time. Then chooses what the options leave open. Null for a run on token files. A template
// that is named joins start.tokenizer_files, and so the run's checkpoints. Throws ConfigError where
// there is no tokenizer or template, or nothing to train on, InputError for files that cannot be
// read and, with strict, for records that cannot be used. Collective over `world`, which is null
// for a process that plans a run of `world_size` ranks.
std::unique_ptr<const Conversations> open_conversations(const Options& options, RunStart& start,
                                                        Communicator* world, int64_t world_size);

}  // namespace moetron
