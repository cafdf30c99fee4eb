#include "moetron/formats/companions.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/path.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "tiktoken.model",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
};
constexpr char kMoreTemplates[] = "additional_chat_templates";
constexpr char kTokenizerConfig[] = "tokenizer_config.json";
constexpr char kAutoMap[] = "auto_map";

void add_if_there(const fs::path& folder, const std::string& name,
                  std::vector<CompanionFile>& files) {
  if (path_exists(folder / name)) files.push_back({name, read_file(folder / name)});
}

// The files below `folder`/`part` (empty: in it) with that ending, by name.
void add_with_ending(const fs::path& folder, const std::string& part, std::string_view ending,
                     std::vector<CompanionFile>& files) {
  const fs::path place = part.empty() ? folder : folder / part;
  if (!is_folder(place)) return;
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(place)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(ending)) names.push_back(part.empty() ? name : concat(part, "/", name));
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) add_if_there(folder, name, files);
}

// All of a directory's code where one of its files names some: modules import each other.
void add_code_named_by(const fs::path& folder, const char* config,
                       std::vector<CompanionFile>& files) {
  if (!path_exists(folder / config)) return;
  const Json document = read_json(folder / config);
  if (document.is_object() && document.contains(kAutoMap))
    add_with_ending(folder, "", ".py", files);
}

// "modeling_x.Class": the code of that file. "owner/name--modeling_x.Class" is another
// repository's.
bool is_there(const std::string& reference, const std::vector<CompanionFile>& files) {
  if (reference.find("--") != std::string::npos) return true;
  const std::string file = reference.substr(0, reference.find('.')) + ".py";
  return std::any_of(files.begin(), files.end(), [&](const auto& f) { return f.name == file; });
}

// An entry is a reference, or a list of references and nulls.
bool entry_is_there(const Json& entry, const std::vector<CompanionFile>& files) {
  if (entry.is_string()) return is_there(entry.get<std::string>(), files);
  if (!entry.is_array()) return entry.is_null();
  return std::all_of(entry.begin(), entry.end(), [&](const Json& part) {
    return part.is_null() || (part.is_string() && is_there(part.get<std::string>(), files));
  });
}

}  // namespace

std::vector<CompanionFile> read_tokenizer_files(const fs::path& folder) {
  std::vector<CompanionFile> files;
  for (const char* name : kTokenizerFiles) add_if_there(folder, name, files);
  add_with_ending(folder, "", ".tiktoken", files);
  add_with_ending(folder, kMoreTemplates, ".jinja", files);
  add_code_named_by(folder, kTokenizerConfig, files);
  return files;
}

std::vector<CompanionFile> read_model_companions(const fs::path& folder) {
  std::vector<CompanionFile> files;
  add_if_there(folder, kGenerationConfigFile, files);
  add_code_named_by(folder, kConfigFile, files);
  return files;
}

void drop_missing_code(Json& config, const std::vector<CompanionFile>& files) {
  if (!config.is_object() || !config.contains(kAutoMap)) return;
  Json kept = Json::object();
  if (config[kAutoMap].is_object()) {
    for (const auto& [name, entry] : config[kAutoMap].items()) {
      if (entry_is_there(entry, files)) kept[name] = entry;
    }
  }
  if (kept.empty()) {
    config.erase(kAutoMap);
  } else {
    config[kAutoMap] = std::move(kept);
  }
}

void add_companions(std::vector<CompanionFile>& files, std::vector<CompanionFile> more) {
  for (CompanionFile& file : more) {
    const bool is_new = std::none_of(files.begin(), files.end(),
                                     [&](const auto& f) { return f.name == file.name; });
    if (is_new) files.push_back(std::move(file));
  }
}

}  // namespace moetron
