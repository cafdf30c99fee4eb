// The small files of a Hugging Face directory that stand beside config.json and the weights. They
// are read when a run starts: its checkpoints get them whatever becomes of the folder they are
// from.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moetron/base/json.h"

namespace moetron {

inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kGenerationConfigFile[] = "generation_config.json";

struct CompanionFile {
  std::string name;  // relative to the directory, '/' between parts
  std::string text;
};

// What a tokenizer may consist of, its chat templates included, and the code that it names.
std::vector<CompanionFile> read_tokenizer_files(const std::filesystem::path& folder);

// generation_config.json, as it is, and the code that config.json names.
std::vector<CompanionFile> read_model_companions(const std::filesystem::path& folder);

// Takes out of a config's auto_map what names code of the directory (not of a repository elsewhere)
// that is not among its files: transformers would look for it in vain.
void drop_missing_code(Json& config, const std::vector<CompanionFile>& files);

// Adds those whose names are not there yet.
void add_companions(std::vector<CompanionFile>& files, std::vector<CompanionFile> more);

}  // namespace moetron
