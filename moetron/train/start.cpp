#include "moetron/train/start.h"

#include "moetron/arch/config_from_options.h"
#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/comm/communicator.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// What --patch-tokenizer-type means for the vocabulary (the Megatron scripts' arithmetic).
int64_t vocabulary_from_tokenizer(const Options& options, const Tokenizer& tokenizer) {
  const int64_t extra = options.model.extra_vocab_size;
  if (!options.tokenizer.patch_tokenizer_type) return tokenizer.vocab_size() + extra;
  switch (*options.tokenizer.patch_tokenizer_type) {
    case PatchTokenizer::kDeepseek:
      return tokenizer.vocab_size() + extra - 2;
    case PatchTokenizer::kQwen3:
      return tokenizer.base_vocab_size() + extra;
  }
  throw InternalError("unknown tokenizer patch");
}

ModelConfig model_of_folder(const fs::path& folder, const Options& options) {
  ModelConfig config = read_model_config(folder);
  check_options_match(config, options, (folder / "config.json").string());
  apply_training_options(options, config);
  if (config.num_mtp_layers > 0) {
    log_info(concat("the ", config.num_mtp_layers, " multi-token-prediction layers of ",
                    folder.string(), " are left out: they are not trained yet"));
    config.num_mtp_layers = 0;
  }
  return config;
}

ModelConfig fresh_model(const Options& options, const Tokenizer* tokenizer) {
  Options filled = options;
  if (!filled.model.vocab_size) {
    MT_CHECK_CONFIG(tokenizer != nullptr,
                    "vocab-size: give it, or --tokenizer-model, or --load, for a fresh model");
    filled.model.vocab_size = vocabulary_from_tokenizer(options, *tokenizer);
  }
  return model_config_from_options(filled);
}

bool is_model_folder(const fs::path& folder) {
  return fs::exists(folder / "config.json");
}

}  // namespace

std::shared_ptr<const Tokenizer> open_tokenizer(const TokenizerOptions& options) {
  if (options.tokenizer == TokenizerKind::kBytes) {
    MT_CHECK_CONFIG(options.tokenizer_model.empty(), "tokenizer (bytes) and tokenizer-model (",
                    options.tokenizer_model, ") contradict each other");
    return Tokenizer::bytes();
  }
  if (options.tokenizer_model.empty()) return nullptr;
  return Tokenizer::load(options.tokenizer_model);
}

RunStart find_start(const Options& options, Communicator& world) {
  RunStart start;
  start.tokenizer = open_tokenizer(options.tokenizer);
  start.tokenizer_folder = options.tokenizer.tokenizer_model;
  const fs::path save = options.checkpoint.save;
  const fs::path load = options.checkpoint.load;

  if (!save.empty()) start.resume = find_latest(save, &world);
  if (start.resume) {
    log_info(
        concat("continues at step ", start.resume->step, " from ", start.resume->folder.string(),
               load.empty() || load == save ? "" : " (a checkpoint in --save wins over --load)"));
  } else if (!load.empty() && load != save) {
    start.resume = find_latest(load, &world);
    if (start.resume) {
      log_info(concat("continues at step ", start.resume->step, " from ",
                      start.resume->folder.string()));
    }
  }
  if (!start.resume && !load.empty()) {
    MT_CHECK_INPUT(is_model_folder(load), "load: ", load.string(),
                   " holds neither a config.json nor a checkpoint");
    start.weights = load;
    if (fs::exists(load / "state" / "trainer.json")) {
      log_info(concat(
          "takes the weights of ", load.string(), ", not its optimizer and step: --load ",
          load.has_parent_path() ? load.parent_path().string() : ".", " would continue that run"));
    }
  }

  const fs::path folder = start.resume ? start.resume->folder : start.weights;
  start.model = folder.empty() ? fresh_model(options, start.tokenizer.get())
                               : model_of_folder(folder, options);
  if (start.tokenizer == nullptr && !folder.empty() && fs::exists(folder / "tokenizer.json")) {
    start.tokenizer_folder = folder;
    start.tokenizer = Tokenizer::load(folder);
  }
  if (start.tokenizer != nullptr) {
    MT_CHECK_CONFIG(start.tokenizer->vocab_size() <= start.model.vocab_size,
                    "tokenizer-model: ", start.tokenizer->vocab_size(),
                    " tokens do not fit the model's vocabulary of ", start.model.vocab_size);
  }
  return start;
}

}  // namespace moetron
