#include "moetron/checkpoint/tensor_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <span>
#include <unistd.h>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/checkpoint/slice_runs.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {
namespace {

// Bytes [begin, end) of a file, being gathered.
struct Block {
  uint64_t begin = 0;
  std::span<std::byte> bytes;
  uint64_t end() const { return begin + bytes.size(); }
};

// Copies the part of a slice that falls into the block. `data`: the view's first element.
void copy_slice(const SliceRuns& runs, const std::byte* data, uint64_t tensor_offset,
                uint64_t item_bytes, Block& block) {
  const uint64_t run_bytes = static_cast<uint64_t>(runs.length()) * item_bytes;
  const uint64_t skipped = block.begin > tensor_offset ? block.begin - tensor_offset : 0;
  int64_t index = runs.first_run_after(static_cast<int64_t>(skipped / item_bytes));
  for (; index < runs.count(); ++index) {
    const SliceRun run = runs.run(index);
    const uint64_t begin = tensor_offset + static_cast<uint64_t>(run.global) * item_bytes;
    if (begin >= block.end()) return;
    const uint64_t first = std::max(begin, block.begin);
    const uint64_t last = std::min(begin + run_bytes, block.end());
    const std::byte* source = data + static_cast<uint64_t>(run.memory) * item_bytes;
    std::memcpy(block.bytes.data() + (first - block.begin), source + (first - begin), last - first);
  }
}

// Gathers the blocks of a file in rising order.
class BlockSource {
 public:
  explicit BlockSource(const TensorFile& file) : file_(file) {
    for (const NamedSlice& slice : file.slices) slices_[slice.name].push_back(&slice);
  }

  void fill(Block& block) {
    const std::string& header = file_.layout.header;
    if (block.begin < header.size()) {
      const size_t count = std::min<size_t>(header.size() - block.begin, block.bytes.size());
      std::memcpy(block.bytes.data(), header.data() + block.begin, count);
    }
    const std::vector<SafetensorsEntry>& tensors = file_.layout.tensors;
    while (next_ < tensors.size() && end_of(tensors[next_]) <= block.begin) ++next_;
    for (size_t i = next_; i < tensors.size() && tensors[i].offset < block.end(); ++i) {
      for (const NamedSlice* slice : slices_.at(tensors[i].name)) {
        const at::Tensor host = on_host(*slice);
        const NamedSlice local{slice->name, slice->global_shape, slice->begin, host};
        const auto* data = static_cast<const std::byte*>(host.const_data_ptr());
        copy_slice(SliceRuns(local), data, tensors[i].offset, host.element_size(), block);
      }
    }
  }

 private:
  static uint64_t end_of(const SafetensorsEntry& tensor) { return tensor.offset + tensor.bytes; }

  // A slice on a device is copied once, for it may span many blocks.
  at::Tensor on_host(const NamedSlice& slice) {
    if (slice.view.is_cpu()) return slice.view;
    if (copied_ != &slice) {
      host_copy_ = slice.view.cpu();
      copied_ = &slice;
    }
    return host_copy_;
  }

  const TensorFile& file_;
  std::map<std::string, std::vector<const NamedSlice*>> slices_;
  size_t next_ = 0;  // the first tensor that has not ended yet
  const NamedSlice* copied_ = nullptr;
  at::Tensor host_copy_;
};

// A file written front to back, closed in any case.
class RawFile {
 public:
  explicit RawFile(const std::filesystem::path& path)
      : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    check(fd_ >= 0);
  }
  ~RawFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      check(written >= 0);
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }
  void sync() { check(::fsync(fd_) == 0); }

 private:
  void check(bool done) const {
    MT_CHECK_CONFIG(done, "cannot write ", path_.string(), ": ", std::strerror(errno));
  }

  std::filesystem::path path_;
  int fd_;
};

uint64_t global_bytes(const NamedSlice& slice) {
  const auto bytes = tensor_bytes(stored_dtype(slice.view.scalar_type()), slice.global_shape);
  MT_CHECK(bytes, slice.name, " has an impossible shape");
  return *bytes;
}

}  // namespace

SafetensorsDtype stored_dtype(at::ScalarType type) {
  if (type == at::kFloat) return SafetensorsDtype::kF32;
  if (type == at::kBFloat16) return SafetensorsDtype::kBF16;
  if (type == at::kHalf) return SafetensorsDtype::kF16;
  if (type == at::kDouble) return SafetensorsDtype::kF64;
  if (type == at::kLong) return SafetensorsDtype::kI64;
  throw InternalError(concat("checkpoints hold no tensors of type ", at::toString(type)));
}

TensorFile plan_file(const std::string& name, const std::vector<NamedSlice>& slices) {
  struct Whole {
    const NamedSlice* first;
    uint64_t bytes;
  };
  std::map<std::string, Whole> tensors;
  for (const NamedSlice& slice : slices) {
    Whole& whole = tensors.try_emplace(slice.name, Whole{&slice, 0}).first->second;
    MT_CHECK(slice.global_shape == whole.first->global_shape &&
                 slice.view.scalar_type() == whole.first->view.scalar_type(),
             slice.name, ": two slices disagree about shape or type");
    whole.bytes += slice.view.nbytes();
  }
  std::vector<SafetensorsTensor> described;
  for (const auto& [tensor, whole] : tensors) {
    MT_CHECK(whole.bytes == global_bytes(*whole.first), tensor, ": slices hold ", whole.bytes,
             " of ", global_bytes(*whole.first), " bytes");
    described.push_back(
        {tensor, stored_dtype(whole.first->view.scalar_type()), whole.first->global_shape});
  }
  return {name, layout_safetensors(std::move(described)), slices};
}

std::vector<TensorFile> plan_model_files(const std::vector<NamedSlice>& slices,
                                         uint64_t shard_bytes) {
  std::map<std::string, size_t> shard_of;
  std::vector<std::vector<NamedSlice>> shards(1);
  uint64_t filled = 0;
  for (const NamedSlice& slice : slices) {
    const auto [place, is_new] = shard_of.try_emplace(slice.name, shards.size() - 1);
    if (is_new) {
      const uint64_t bytes = global_bytes(slice);
      if (filled > 0 && filled + bytes > shard_bytes) {
        shards.emplace_back();
        filled = 0;
      }
      filled += bytes;
      place->second = shards.size() - 1;
    }
    shards[place->second].push_back(slice);
  }
  std::vector<TensorFile> files;
  const int num_shards = static_cast<int>(shards.size());
  for (int shard = 0; shard < num_shards; ++shard) {
    files.push_back(plan_file(shard_file_name(shard, num_shards), shards[shard]));
  }
  return files;
}

ManifestFile write_tensor_file(const std::filesystem::path& folder, const TensorFile& file) {
  ManifestFile entry{file.name, file.layout.file_bytes, {}};
  RawFile raw(folder / file.name);
  BlockSource source(file);
  std::vector<std::byte> buffer(std::min(kManifestBlockBytes, file.layout.file_bytes));
  for (uint64_t begin = 0; begin < file.layout.file_bytes; begin += kManifestBlockBytes) {
    const uint64_t count = std::min(kManifestBlockBytes, file.layout.file_bytes - begin);
    Block block{begin, std::span(buffer).first(count)};
    source.fill(block);
    entry.blocks.push_back(hash_hex(block.bytes));
    raw.write(block.bytes);
  }
  raw.sync();
  return entry;
}

}  // namespace moetron
