// Blocks of 16 MiB, the manifest's: the unit in which checkpoints are gathered, hashed and written.
// The part of a block that one rank holds travels packed: its bytes in the order of the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/checkpoint/slice_runs.h"
#include "moetron/checkpoint/tensor_file.h"

namespace moetron {

struct FileBlock {
  const TensorFile* file = nullptr;
  ByteRange range;
  uint64_t index = 0;  // among the blocks of all files
  int writer = 0;      // the rank that gathers, hashes and writes it

  uint64_t bytes() const { return range.end - range.begin; }
};

// The blocks of all files, one after the other. `files` stay where they are.
class BlockList {
 public:
  explicit BlockList(std::span<const TensorFile> files);

  uint64_t count() const { return ends_.empty() ? 0 : ends_.back(); }
  FileBlock block(uint64_t index, int writer) const;

 private:
  std::span<const TensorFile> files_;
  std::vector<uint64_t> ends_;  // of each file: the number of blocks up to its end
};

// How many bytes of the block each of `num_ranks` ranks holds; of replicas, each of them. The
// file's header is nobody's.
std::vector<uint64_t> bytes_held(const FileBlock& block, int num_ranks);

// How many bytes each rank gives to the block. One rank gives a box: the writer, if it holds it,
// else one of its holders, so that the replicas take turns from block to block.
std::vector<uint64_t> bytes_given(const FileBlock& block, int num_ranks);

// Copies to host memory, as one where they follow each other at both ends: a device needs as long
// to be asked for a small copy as for a large one. A copy stays within the memory of one tensor at
// either end, for CUDA refuses one that leaves an allocation, though the next lies right behind it.
class JoinedCopies {
 public:
  // `count` bytes from byte `begin` of `from`'s memory, done by flush() at the latest. Where
  // `target` lies in other memory than the one before, flush() comes first.
  void add(std::byte* target, const at::Tensor& from, uint64_t begin, uint64_t count);
  // From a device on its current stream; where the target is pinned, they may still be under way.
  void flush();

 private:
  std::byte* target_ = nullptr;
  const std::byte* source_ = nullptr;
  uint64_t count_ = 0;
  at::Tensor from_;  // holds the bytes
};

// Adds to `copies` those of what this rank, `rank`, gives to the block to `packed`, which has as
// many bytes. `slices`: this rank's, of the file's content. Those on a device are copied as far as
// the block needs them.
void pack_slices(const FileBlock& block, int rank, std::span<const NamedSlice> slices,
                 std::span<std::byte> packed, JoinedCopies& copies);

// Each fills its part of `bytes`, the whole block: the header, what this rank gives, what `rank`
// gives and has packed.
void place_header(const FileBlock& block, std::span<std::byte> bytes);
void place_slices(const FileBlock& block, int rank, std::span<const NamedSlice> slices,
                  std::span<std::byte> bytes);
void place_packed(const FileBlock& block, int rank, std::span<const std::byte> packed,
                  std::span<std::byte> bytes);

}  // namespace moetron
