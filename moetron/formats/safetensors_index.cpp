#include "moetron/formats/safetensors_index.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include <nlohmann/json.hpp>
#include <simdjson.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr char kSingleName[] = "model.safetensors";

// A shard lies in the folder itself: no way out of it, neither "../x" nor "/x".
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

std::string join(const std::set<std::string>& names) {
  std::string joined;
  for (const std::string& name : names) joined += (joined.empty() ? "" : ", ") + name;
  return joined;
}

}  // namespace

SafetensorsIndex read_safetensors_index(const fs::path& path) {
  const std::string text = read_file(path);
  simdjson::dom::parser parser;
  simdjson::dom::object root, weight_map;
  const auto error = parser.parse(text).get(root);
  MT_CHECK_INPUT(!error, path.string(), " is no JSON object: ", simdjson::error_message(error));
  MT_CHECK_INPUT(!root["weight_map"].get(weight_map), path.string(), " has no weight_map object");
  SafetensorsIndex index;
  for (const auto [name, value] : weight_map) {
    std::string_view file;
    MT_CHECK_INPUT(!value.get(file) && is_plain_file_name(file), path.string(), ": tensor ", name,
                   " needs the plain name of a file in the same folder");
    const bool is_new = index.weight_map.emplace(name, file).second;
    MT_CHECK_INPUT(is_new, path.string(), " holds the tensor ", name, " twice");
  }
  // Some writers give a float or leave the size out; nothing depends on it.
  uint64_t total_size = 0;
  if (!root["metadata"]["total_size"].get(total_size)) index.total_size = total_size;
  return index;
}

void write_safetensors_index(const fs::path& path, const SafetensorsIndex& index) {
  // Not Json's own object: filling an ordered one takes quadratic time for many tensors.
  std::string text =
      "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(index.total_size) +
      "\n  },\n  \"weight_map\": {";
  const char* separator = "\n";
  for (const auto& [name, file] : index.weight_map) {
    MT_CHECK(is_plain_file_name(file), "shard \"", file, "\" is no plain file name");
    text += separator + std::string("    ") + Json(name).dump() + ": " + Json(file).dump();
    separator = ",\n";
  }
  text += index.weight_map.empty() ? "}\n}\n" : "\n  }\n}\n";
  write_file(path, text);
}

void SafetensorsIndex::add(const std::string& file, const SafetensorsLayout& layout) {
  for (const SafetensorsEntry& tensor : layout.tensors) {
    weight_map[tensor.name] = file;
    total_size += tensor.bytes;
  }
}

std::vector<size_t> shard_ends(std::span<const uint64_t> tensor_bytes, uint64_t shard_bytes) {
  std::vector<size_t> ends;
  uint64_t filled = 0;
  for (size_t i = 0; i < tensor_bytes.size(); ++i) {
    const uint64_t bytes = tensor_bytes[i];
    if (filled > 0 && (filled > shard_bytes || bytes > shard_bytes - filled)) {
      ends.push_back(i);
      filled = 0;
    }
    filled += bytes;
  }
  ends.push_back(tensor_bytes.size());
  return ends;
}

std::string shard_file_name(int shard, int num_shards) {
  if (num_shards == 1) return kSingleName;
  char name[64];
  std::snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", shard + 1, num_shards);
  return name;
}

bool holds_model_files(const fs::path& folder) {
  return path_exists(folder / kSingleName) || path_exists(folder / kIndexFile);
}

ModelFiles::ModelFiles(const fs::path& path) : folder_(path) {
  const fs::path& folder = folder_;
  if (path_exists(path) && !is_folder(path)) {
    open_single(path);
    return;
  }
  const bool has_single = path_exists(folder / kSingleName);
  if (path_exists(folder / kIndexFile)) {
    const SafetensorsIndex index = read_safetensors_index(folder / kIndexFile);
    // transformers would read the one file, others the shards.
    const bool is_one_model =
        std::all_of(index.weight_map.begin(), index.weight_map.end(),
                    [&](const auto& place) { return !has_single || place.second == kSingleName; });
    MT_CHECK_INPUT(is_one_model, folder.string(), " holds two models, ", kSingleName,
                   " and the shards of ", kIndexFile, ": remove one of them");
    open_shards(index);
    return;
  }
  MT_CHECK_INPUT(has_single, folder.string(), " holds neither ", kSingleName, " nor ", kIndexFile);
  open_single(folder / kSingleName);
}

void ModelFiles::open_single(const fs::path& path) {
  files_.emplace_back(path);
  for (const SafetensorsEntry& tensor : files_[0].tensors()) places_[tensor.name] = {0, &tensor};
}

void ModelFiles::open_shards(const SafetensorsIndex& index) {
  std::set<std::string> missing;
  std::map<std::string, size_t> shards;
  for (const auto& [tensor, file] : index.weight_map) {
    shards[file];
    if (!path_exists(folder_ / file)) missing.insert(file);
  }
  MT_CHECK_INPUT(missing.empty(), folder_.string(), " lacks shards of its index: ", join(missing));
  for (auto& [file, number] : shards) {
    number = files_.size();
    files_.emplace_back(folder_ / file);
  }
  for (const auto& [name, file] : index.weight_map) {
    const size_t number = shards[file];
    const SafetensorsEntry* tensor = files_[number].find(name);
    MT_CHECK_INPUT(tensor != nullptr, (folder_ / kIndexFile).string(), " places tensor ", name,
                   " in ", file, ", which does not hold it");
    places_[name] = {number, tensor};
  }
  check_shards(index);
}

// Who reads a directory shard by shard takes every tensor of each, and of two the later one.
void ModelFiles::check_shards(const SafetensorsIndex& index) const {
  uint64_t total_size = 0;
  std::vector<std::string> unnamed;
  for (size_t number = 0; number < files_.size(); ++number) {
    for (const SafetensorsEntry& tensor : files_[number].tensors()) {
      total_size += tensor.bytes;
      const auto found = places_.find(tensor.name);
      if (found == places_.end()) {
        unnamed.push_back(tensor.name);
        continue;
      }
      MT_CHECK_INPUT(found->second.file == number, folder_.string(), " holds tensor ", tensor.name,
                     " twice, in ", files_[found->second.file].path().filename().string(), " and ",
                     files_[number].path().filename().string());
    }
  }
  const std::string path = (folder_ / kIndexFile).string();
  if (!unnamed.empty())
    log_info(concat(path, " does not name ", unnamed.size(),
                    " tensors of its shards, which are left out; the first is ", unnamed.front()));
  if (unnamed.empty() && index.total_size != 0 && index.total_size != total_size)
    log_info(concat(path, " says a total_size of ", index.total_size,
                    " bytes, but the tensors have ", total_size));
}

std::vector<std::string> ModelFiles::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

const ModelFiles::Place& ModelFiles::place(std::string_view name) const {
  const auto found = places_.find(name);
  MT_CHECK_INPUT(found != places_.end(), folder_.string(), " holds no tensor ", name);
  return found->second;
}

const SafetensorsEntry& ModelFiles::at(std::string_view name) const {
  return *place(name).tensor;
}

std::span<const std::byte> ModelFiles::bytes(std::string_view name) const {
  const Place& found = place(name);
  return files_[found.file].bytes(*found.tensor);
}

const fs::path& ModelFiles::file_of(std::string_view name) const {
  return files_[place(name).file].path();
}

}  // namespace moetron
