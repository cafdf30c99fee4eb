#include "moetron/checkpoint/slice_reader.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/checkpoint/slice_runs.h"
#include "moetron/checkpoint/tensor_file.h"

namespace moetron {
namespace {

bool is_float_of_weights(SafetensorsDtype dtype) {
  return dtype == SafetensorsDtype::kF32 || dtype == SafetensorsDtype::kBF16 ||
         dtype == SafetensorsDtype::kF16;
}

template <class From, class To>
void convert(const std::byte* source, std::byte* target, int64_t count) {
  constexpr int64_t kChunk = 1024;
  std::array<From, kChunk> chunk;  // aligned, which the file need not be
  auto* out = reinterpret_cast<To*>(target);
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t size = std::min(kChunk, count - begin);
    std::memcpy(static_cast<void*>(chunk.data()), source + begin * sizeof(From),
                size * sizeof(From));
    for (int64_t i = 0; i < size; ++i) out[begin + i] = To(static_cast<float>(chunk[i]));
  }
}

template <class From>
void convert_to(SafetensorsDtype to, const std::byte* source, std::byte* target, int64_t count) {
  if (to == SafetensorsDtype::kF32) return convert<From, float>(source, target, count);
  if (to == SafetensorsDtype::kBF16) return convert<From, at::BFloat16>(source, target, count);
  convert<From, at::Half>(source, target, count);
}

void convert(SafetensorsDtype from, SafetensorsDtype to, const std::byte* source, std::byte* target,
             int64_t count) {
  if (from == SafetensorsDtype::kF32) return convert_to<float>(to, source, target, count);
  if (from == SafetensorsDtype::kBF16) return convert_to<at::BFloat16>(to, source, target, count);
  convert_to<at::Half>(to, source, target, count);
}

}  // namespace

bool is_convertible(SafetensorsDtype from, SafetensorsDtype to) {
  return from == to || (is_float_of_weights(from) && is_float_of_weights(to));
}

void fill_slice(const NamedSlice& slice, const StoredTensor& tensor) {
  const SafetensorsDtype wanted = stored_dtype(slice.view.scalar_type());
  MT_CHECK(is_convertible(tensor.dtype, wanted), slice.name, ": no conversion from ",
           dtype_name(tensor.dtype), " to ", dtype_name(wanted));
  MT_CHECK(tensor.bytes.size() == tensor_bytes(tensor.dtype, slice.global_shape), slice.name, ": ",
           tensor.bytes.size(), " bytes do not fit the global shape");
  const bool is_on_host = slice.view.is_cpu();
  NamedSlice local = slice;
  if (!is_on_host) local.view = at::empty(slice.view.sizes(), slice.view.scalar_type());
  const SliceRuns runs(local);
  const int64_t from_bytes = dtype_bits(tensor.dtype) / 8;
  const int64_t to_bytes = dtype_bits(wanted) / 8;
  auto* data = static_cast<std::byte*>(local.view.mutable_data_ptr());
  for (int64_t i = 0; i < runs.count(); ++i) {
    const SliceRun run = runs.run(i);
    const std::byte* source = tensor.bytes.data() + run.global * from_bytes;
    std::byte* target = data + run.memory * to_bytes;
    if (tensor.dtype == wanted) {
      std::memcpy(target, source, runs.length() * to_bytes);
    } else {
      convert(tensor.dtype, wanted, source, target, runs.length());
    }
  }
  if (!is_on_host) slice.view.copy_(local.view);
}

}  // namespace moetron
