#include "moetron/checkpoint/tokenizer_files.h"

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/log.h"

namespace moetron {
namespace {

// Everything that a Hugging Face tokenizer may consist of.
constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
};

}  // namespace

std::vector<CheckpointFile> read_tokenizer_files(const std::filesystem::path& folder) {
  std::vector<CheckpointFile> files;
  for (const char* name : kTokenizerFiles) {
    if (std::filesystem::is_regular_file(folder / name)) {
      files.push_back({name, read_file(folder / name)});
    }
  }
  if (files.empty()) {
    log_warning(concat("checkpoints get no tokenizer: ", folder.string(), " holds none"));
  }
  return files;
}

}  // namespace moetron
