#include "moetron/convert/write_model.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/base/parallel_for.h"
#include "moetron/base/placed_writer.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// One file to be. It is made by whoever writes its first block, and brought to the disk by whoever
// writes its last, while others are at work on the next file.
struct Shard {
  std::string name;
  SafetensorsLayout layout;
  std::vector<size_t> sources;  // index in the source of layout.tensors[i]
  uint64_t first_block = 0;     // among those of all shards
  ManifestFile entry;
  uint64_t blocks_left = 0;
  std::shared_ptr<PlacedWriter> file;
};

class ShardWriter {
 public:
  ShardWriter(const TensorSource& source, const fs::path& folder, const WriteSettings& settings)
      : source_(source), folder_(folder), settings_(settings) {
    plan();
  }

  void write() {
    parallel_for(settings_.num_threads, num_blocks_, [&](uint64_t block) { write_block(block); });
  }

  std::vector<ManifestFile> entries() const {
    std::vector<ManifestFile> entries;
    entries.reserve(shards_.size());
    for (const Shard& shard : shards_) entries.push_back(shard.entry);
    return entries;
  }

  // Of one file there is no index.
  SafetensorsIndex index() const {
    SafetensorsIndex index;
    if (shards_.size() == 1) return index;
    for (const Shard& shard : shards_) index.add(shard.name, shard.layout);
    return index;
  }

 private:
  void plan() {
    const std::vector<SafetensorsTensor>& tensors = source_.tensors();
    std::vector<uint64_t> bytes;
    for (const SafetensorsTensor& tensor : tensors) {
      const auto size = tensor_bytes(tensor.dtype, tensor.shape);
      MT_CHECK_INPUT(size, "tensor ", tensor.name, " has a shape too large");
      bytes.push_back(*size);
    }
    const std::vector<size_t> ends = shard_ends(bytes, settings_.shard_bytes);
    size_t begin = 0;
    for (const size_t end : ends) {
      plan_shard(shard_file_name(static_cast<int>(shards_.size()), static_cast<int>(ends.size())),
                 std::span(tensors).subspan(begin, end - begin));
      begin = end;
    }
  }

  void plan_shard(const std::string& name, std::span<const SafetensorsTensor> tensors) {
    Shard& shard = shards_.emplace_back();
    shard.name = name;
    shard.layout = layout_safetensors({tensors.begin(), tensors.end()});
    for (const SafetensorsEntry& tensor : shard.layout.tensors)
      shard.sources.push_back(find_tensor(source_, tensor.name));
    shard.first_block = num_blocks_;
    const uint64_t size = shard.layout.file_bytes;
    shard.blocks_left = (size + kManifestBlockBytes - 1) / kManifestBlockBytes;
    shard.entry = {name, size, std::vector<std::string>(shard.blocks_left)};
    num_blocks_ += shard.blocks_left;
  }

  void write_block(uint64_t number) {
    const auto behind = std::upper_bound(
        shards_.begin(), shards_.end(), number,
        [](uint64_t block, const Shard& shard) { return block < shard.first_block; });
    Shard& shard = *std::prev(behind);
    const uint64_t block = number - shard.first_block;
    const uint64_t begin = block * kManifestBlockBytes;
    const uint64_t size = std::min(kManifestBlockBytes, shard.layout.file_bytes - begin);
    const auto memory = std::make_unique_for_overwrite<std::byte[]>(size);
    const std::span<std::byte> bytes(memory.get(), size);
    fill(shard, begin, bytes);
    shard.entry.blocks[block] = hash_hex(bytes);
    open(shard)->write(bytes, begin);
    finish(shard);
  }

  // Bytes [begin, begin + bytes.size()) of the file.
  void fill(const Shard& shard, uint64_t begin, std::span<std::byte> bytes) const {
    const SafetensorsLayout& layout = shard.layout;
    const uint64_t end = begin + bytes.size();
    if (begin < layout.header.size()) {
      const uint64_t count = std::min(end, uint64_t{layout.header.size()}) - begin;
      std::memcpy(bytes.data(), layout.header.data() + begin, count);
    }
    auto tensor = std::upper_bound(layout.tensors.begin(), layout.tensors.end(), begin,
                                   [](uint64_t place, const SafetensorsEntry& entry) {
                                     return place < entry.offset + entry.bytes;
                                   });
    for (; tensor != layout.tensors.end() && tensor->offset < end; ++tensor) {
      const uint64_t first = std::max(begin, tensor->offset);
      const uint64_t last = std::min(end, tensor->offset + tensor->bytes);
      if (first == last) continue;
      // Types come widest first behind a header of whole 8 bytes: no element is cut by a block.
      const auto item_bytes = static_cast<uint64_t>(dtype_bits(tensor->dtype) / 8);
      source_.read(shard.sources[static_cast<size_t>(tensor - layout.tensors.begin())],
                   (first - tensor->offset) / item_bytes, (last - first) / item_bytes,
                   bytes.subspan(first - begin, last - first));
    }
  }

  std::shared_ptr<PlacedWriter> open(Shard& shard) {
    const std::lock_guard lock(mutex_);
    if (!shard.file)
      shard.file = std::make_shared<PlacedWriter>(folder_ / shard.name, shard.layout.file_bytes);
    return shard.file;
  }

  void finish(Shard& shard) {
    std::shared_ptr<PlacedWriter> complete;
    {
      const std::lock_guard lock(mutex_);
      if (--shard.blocks_left == 0) complete = std::move(shard.file);
      if (settings_.progress) settings_.progress(++num_written_, num_blocks_);
    }
    if (complete) complete->sync();
  }

  const TensorSource& source_;
  fs::path folder_;
  const WriteSettings& settings_;
  std::vector<Shard> shards_;
  uint64_t num_blocks_ = 0;
  std::mutex mutex_;  // of blocks_left, file and num_written_
  uint64_t num_written_ = 0;
};

}  // namespace

std::vector<ManifestFile> write_model(const TensorSource& source, const fs::path& folder,
                                      const WriteSettings& settings) {
  ShardWriter writer(source, folder, settings);
  writer.write();
  std::vector<ManifestFile> entries = writer.entries();
  const SafetensorsIndex index = writer.index();
  if (!index.weight_map.empty()) {
    write_safetensors_index(folder / kIndexFile, index);
    entries.push_back(hash_file(folder, kIndexFile));
  }
  return entries;
}

}  // namespace moetron
