// A Hugging Face model directory: one model.safetensors, or shards with
// model.safetensors.index.json that says which tensor lies in which shard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/formats/safetensors.h"

namespace moetron {

inline constexpr char kIndexFile[] = "model.safetensors.index.json";

struct SafetensorsIndex {
  uint64_t total_size = 0;                        // bytes of all tensors; 0 when the file is silent
  std::map<std::string, std::string> weight_map;  // tensor name -> shard's file name

  // Adds the tensors of a shard.
  void add(const std::string& file, const SafetensorsLayout& layout);
};

// Throws InputError for a shard name that is not a plain file name of the same folder.
SafetensorsIndex read_safetensors_index(const std::filesystem::path& path);
void write_safetensors_index(const std::filesystem::path& path, const SafetensorsIndex& index);

// "model.safetensors" for one shard, else "model-00001-of-00003.safetensors"; shard counts
// from 0.
std::string shard_file_name(int shard, int num_shards);

// Divides tensors of these bytes, in their order, among files of at most `shard_bytes` each (one
// tensor alone may be more): returns where each file ends.
std::vector<size_t> shard_ends(std::span<const uint64_t> tensor_bytes, uint64_t shard_bytes);

// Whether a folder holds a model.safetensors or an index of shards.
bool holds_model_files(const std::filesystem::path& folder);

// The weights of a directory, or of one safetensors file, mapped. Every shard is opened and checked
// at construction.
class ModelFiles {
 public:
  // Throws InputError when the folder holds no weights, naming missing shards, and when the index
  // and the shards disagree, or two shards hold one tensor. Tensors that the index does not name,
  // and a total size of it that is not that of the tensors, are told in one line.
  explicit ModelFiles(const std::filesystem::path& path);

  const std::filesystem::path& folder() const { return folder_; }  // or the file
  std::vector<std::string> names() const;                          // sorted
  bool contains(std::string_view name) const { return places_.find(name) != places_.end(); }
  const SafetensorsEntry& at(std::string_view name) const;  // InputError when absent
  std::span<const std::byte> bytes(std::string_view name) const;
  const std::filesystem::path& file_of(std::string_view name) const;

 private:
  struct Place {
    size_t file = 0;
    const SafetensorsEntry* tensor = nullptr;
  };
  void open_single(const std::filesystem::path& path);
  void open_shards(const SafetensorsIndex& index);
  void check_shards(const SafetensorsIndex& index) const;
  const Place& place(std::string_view name) const;

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace moetron
