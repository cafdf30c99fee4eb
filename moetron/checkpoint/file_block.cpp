#include "moetron/checkpoint/file_block.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/formats/manifest.h"

namespace moetron {
namespace {

// A tensor that the block meets, and a box of it.
struct BlockPart {
  const SafetensorsEntry& tensor;
  const HeldBox& box;

  TensorPlace place() const {
    return {tensor.offset, static_cast<uint64_t>(dtype_bits(tensor.dtype)) / 8};
  }
  // The box, dense, as it travels.
  SliceRuns dense_runs() const {
    const std::vector<int64_t> strides = dense_strides(box.sizes);
    return {tensor.name, {tensor.shape, box.begin, box.sizes, strides}};
  }
  uint64_t bytes_in(const ByteRange& range) const {
    return bytes_inside(dense_runs(), place(), range);
  }
};

// Calls visit(part) for the boxes of all tensors that meet the block, in the order of the file.
template <class Visit>
void for_each_part(const FileBlock& block, const Visit& visit) {
  const std::vector<SafetensorsEntry>& tensors = block.file->layout.tensors;
  const auto is_before = [&](const SafetensorsEntry& tensor) {
    return tensor.offset + tensor.bytes <= block.range.begin;
  };
  const auto first = std::partition_point(tensors.begin(), tensors.end(), is_before);
  for (size_t i = static_cast<size_t>(first - tensors.begin());
       i < tensors.size() && tensors[i].offset < block.range.end; ++i) {
    for (const HeldBox& box : block.file->boxes[i]) visit(BlockPart{tensors[i], box});
  }
}

const Holder& giver_of(const FileBlock& block, const HeldBox& box) {
  const std::vector<Holder>& holders = box.holders;
  const auto writer =
      std::lower_bound(holders.begin(), holders.end(), block.writer,
                       [](const Holder& holder, int rank) { return holder.rank < rank; });
  if (writer != holders.end() && writer->rank == block.writer) return *writer;
  return holders[block.index % holders.size()];
}

// Calls visit(part, which of the rank's slices it is) for what the rank gives.
template <class Visit>
void for_each_part_of(const FileBlock& block, int rank, const Visit& visit) {
  for_each_part(block, [&](const BlockPart& part) {
    const Holder& giver = giver_of(block, part.box);
    if (giver.rank == rank) visit(part, static_cast<size_t>(giver.slice));
  });
}

// The rows of a slice that the block needs.
struct SliceRows {
  at::Tensor view;
  std::vector<int64_t> begin;
};

SliceRows rows_inside(const NamedSlice& slice, const TensorPlace& place, const ByteRange& range) {
  SliceRows rows{slice.view, slice.begin};
  if (slice.view.dim() > 0) {
    uint64_t row_bytes = place.item_bytes;  // of the whole tensor
    for (size_t dim = 1; dim < slice.global_shape.size(); ++dim) {
      row_bytes *= static_cast<uint64_t>(slice.global_shape[dim]);
    }
    const uint64_t from = range.begin > place.offset ? range.begin - place.offset : 0;
    const uint64_t to = range.end - place.offset;
    const int64_t end = slice.begin[0] + slice.view.size(0);
    const int64_t first = std::max(static_cast<int64_t>(from / row_bytes), slice.begin[0]);
    const int64_t last = std::min(static_cast<int64_t>((to + row_bytes - 1) / row_bytes), end);
    rows.begin[0] = std::min(first, end);
    rows.view = slice.view.narrow(0, rows.begin[0] - slice.begin[0],
                                  std::max<int64_t>(last - rows.begin[0], 0));
  }
  return rows;
}

// Calls visit(byte of the file, byte behind rows.view's data, number of bytes) for all stretches of
// the rows inside the block.
template <class Visit>
void for_each_stretch_of(const NamedSlice& slice, const SliceRows& rows, const TensorPlace& place,
                         const FileBlock& block, const Visit& visit) {
  const SliceRuns runs(slice.name,
                       {slice.global_shape, rows.begin, rows.view.sizes(), rows.view.strides()});
  for_each_stretch(runs, place, block.range, visit);
}

void copy_bytes(std::byte* target, const std::byte* source, uint64_t count, c10::Device device) {
  if (device.is_cpu()) {
    std::memcpy(target, source, count);
    return;
  }
  const auto size = static_cast<int64_t>(count);
  const at::Tensor from = at::from_blob(const_cast<std::byte*>(source), {size},  // is only read
                                        at::device(device).dtype(at::kByte));
  at::from_blob(target, {size}, at::kByte).copy_(from, /*non_blocking=*/true);
}

// Copies the rows' stretches one behind the other, and returns how many bytes that were.
uint64_t pack_rows(const NamedSlice& slice, SliceRows rows, const TensorPlace& place,
                   const FileBlock& block, std::span<std::byte> packed, JoinedCopies& copies) {
  // On a device, rows with gaps between them are brought together first: a copy to the host for
  // each would take longer.
  if (!rows.view.is_cpu()) rows.view = rows.view.contiguous();
  uint64_t done = 0;
  for_each_stretch_of(slice, rows, place, block, [&](uint64_t, uint64_t from, uint64_t bytes) {
    MT_CHECK(done + bytes <= packed.size(), "a part of a block outgrows its message");
    copies.add(packed.data() + done, rows.view, from, bytes);
    done += bytes;
  });
  return done;
}

}  // namespace

void JoinedCopies::add(std::byte* target, const at::Tensor& from, uint64_t begin, uint64_t count) {
  const auto* source = static_cast<const std::byte*>(from.const_data_ptr()) + begin;
  const bool follows = from_.defined() && from.is_alias_of(from_) && target == target_ + count_ &&
                       source == source_ + count_;
  if (!follows) {
    flush();
    target_ = target;
    source_ = source;
    from_ = from;
  }
  count_ += count;
}

void JoinedCopies::flush() {
  if (count_ > 0) copy_bytes(target_, source_, count_, from_.device());
  count_ = 0;
  from_.reset();
}

BlockList::BlockList(std::span<const TensorFile> files) : files_(files) {
  uint64_t end = 0;
  for (const TensorFile& file : files) {
    end += (file.layout.file_bytes + kManifestBlockBytes - 1) / kManifestBlockBytes;
    ends_.push_back(end);
  }
}

FileBlock BlockList::block(uint64_t index, int writer) const {
  const auto found = std::upper_bound(ends_.begin(), ends_.end(), index);
  MT_CHECK(found != ends_.end(), "block ", index, " of ", count());
  const auto place = static_cast<size_t>(found - ends_.begin());
  const uint64_t begin = (index - (place > 0 ? ends_[place - 1] : 0)) * kManifestBlockBytes;
  const TensorFile& file = files_[place];
  const uint64_t end = std::min(begin + kManifestBlockBytes, file.layout.file_bytes);
  return {&file, {begin, end}, index, writer};
}

std::vector<uint64_t> bytes_held(const FileBlock& block, int num_ranks) {
  std::vector<uint64_t> bytes(static_cast<size_t>(num_ranks));
  for_each_part(block, [&](const BlockPart& part) {
    const uint64_t inside = part.bytes_in(block.range);
    for (const Holder& holder : part.box.holders) {
      bytes[static_cast<size_t>(holder.rank)] += inside;
    }
  });
  return bytes;
}

std::vector<uint64_t> bytes_given(const FileBlock& block, int num_ranks) {
  std::vector<uint64_t> bytes(static_cast<size_t>(num_ranks));
  for_each_part(block, [&](const BlockPart& part) {
    bytes[static_cast<size_t>(giver_of(block, part.box).rank)] += part.bytes_in(block.range);
  });
  return bytes;
}

void pack_slices(const FileBlock& block, int rank, std::span<const NamedSlice> slices,
                 std::span<std::byte> packed, JoinedCopies& copies) {
  uint64_t done = 0;
  for_each_part_of(block, rank, [&](const BlockPart& part, size_t place) {
    const NamedSlice& slice = slices[place];
    SliceRows rows = rows_inside(slice, part.place(), block.range);
    if (rows.view.numel() == 0) return;
    done += pack_rows(slice, std::move(rows), part.place(), block, packed.subspan(done), copies);
  });
  MT_CHECK(done == packed.size(), "a part of a block has ", done, " bytes, not ", packed.size());
}

void place_header(const FileBlock& block, std::span<std::byte> bytes) {
  const std::string& header = block.file->layout.header;
  if (block.range.begin >= header.size()) return;
  const size_t count = std::min<size_t>(header.size() - block.range.begin, bytes.size());
  std::memcpy(bytes.data(), header.data() + block.range.begin, count);
}

void place_slices(const FileBlock& block, int rank, std::span<const NamedSlice> slices,
                  std::span<std::byte> bytes) {
  for_each_part_of(block, rank, [&](const BlockPart& part, size_t place) {
    const NamedSlice& slice = slices[place];
    SliceRows rows = rows_inside(slice, part.place(), block.range);
    if (rows.view.numel() == 0) return;
    rows.view = rows.view.cpu();
    const auto* data = static_cast<const std::byte*>(rows.view.const_data_ptr());
    for_each_stretch_of(
        slice, rows, part.place(), block, [&](uint64_t in_file, uint64_t from, uint64_t count) {
          std::memcpy(bytes.data() + (in_file - block.range.begin), data + from, count);
        });
  });
}

void place_packed(const FileBlock& block, int rank, std::span<const std::byte> packed,
                  std::span<std::byte> bytes) {
  uint64_t done = 0;
  for_each_part_of(block, rank, [&](const BlockPart& part, size_t) {
    for_each_stretch(part.dense_runs(), part.place(), block.range,
                     [&](uint64_t in_file, uint64_t, uint64_t count) {
                       std::memcpy(bytes.data() + (in_file - block.range.begin),
                                   packed.data() + done, count);
                       done += count;
                     });
  });
  MT_CHECK(done == packed.size(), "rank ", rank, " sent ", packed.size(), " bytes, not ", done);
}

}  // namespace moetron
