#include "moetron/convert/verify_copy.h"

#include <cstring>
#include <memory>
#include <mutex>

#include "moetron/base/error.h"
#include "moetron/base/parallel_for.h"
#include "moetron/convert/tensor_chunks.h"

namespace moetron {
namespace {

void check_tensors(const TensorSource& source, const TensorSource& copy) {
  const std::vector<SafetensorsTensor>&wanted = source.tensors(), &found = copy.tensors();
  MT_CHECK_INPUT(wanted.size() == found.size(), "verify: ", found.size(),
                 " tensors were written of ", wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    MT_CHECK_INPUT(wanted[i].name == found[i].name && wanted[i].dtype == found[i].dtype &&
                       wanted[i].shape == found[i].shape,
                   "verify: tensor ", wanted[i].name, " (", dtype_name(wanted[i].dtype), " ",
                   shape_text(wanted[i].shape), ") was written as ", found[i].name, " (",
                   dtype_name(found[i].dtype), " ", shape_text(found[i].shape), ")");
  }
}

void check_chunk(const TensorSource& source, const TensorSource& copy, const TensorChunk& chunk) {
  const SafetensorsTensor& tensor = source.tensors()[chunk.tensor];
  const uint64_t size = chunk.count * static_cast<uint64_t>(dtype_bits(tensor.dtype) / 8);
  const auto memory = std::make_unique_for_overwrite<std::byte[]>(2 * size);
  const std::span<std::byte> wanted(memory.get(), size), found(memory.get() + size, size);
  source.read(chunk.tensor, chunk.begin, chunk.count, wanted);
  copy.read(chunk.tensor, chunk.begin, chunk.count, found);
  MT_CHECK_INPUT(std::memcmp(wanted.data(), found.data(), size) == 0, "verify: tensor ",
                 tensor.name, " was written with other bits between its elements ", chunk.begin,
                 " and ", chunk.begin + chunk.count - 1);
}

}  // namespace

void verify_copy(const TensorSource& source, const TensorSource& copy, int num_threads,
                 const std::function<void(uint64_t done, uint64_t total)>& progress) {
  check_tensors(source, copy);
  std::vector<TensorChunk> chunks;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const std::vector<TensorChunk> more = chunks_of(source.tensors()[i], i);
    chunks.insert(chunks.end(), more.begin(), more.end());
  }
  std::mutex mutex;
  uint64_t done = 0;
  parallel_for(num_threads, chunks.size(), [&](uint64_t i) {
    check_chunk(source, copy, chunks[i]);
    const std::lock_guard lock(mutex);
    if (progress) progress(++done, chunks.size());
  });
}

}  // namespace moetron
