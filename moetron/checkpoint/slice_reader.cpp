#include "moetron/checkpoint/slice_reader.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/checkpoint/slice_runs.h"
#include "moetron/checkpoint/tensor_file.h"
#include "moetron/formats/float_types.h"

namespace moetron {
namespace {

// Elements from the global element `begin` on, as `to`.
void convert_scaled(const StoredTensor& tensor, uint64_t begin, std::span<const std::byte> bits,
                    SafetensorsDtype to, std::span<std::byte> out) {
  constexpr size_t kChunk = 1024;
  std::array<float, kChunk> values;
  const size_t to_bytes = dtype_bits(to) / 8;
  for (size_t done = 0; done < bits.size(); done += kChunk) {
    const size_t size = std::min(kChunk, bits.size() - done);
    const std::span<float> chunk = std::span(values).first(size);
    tensor.scales->dequantise(begin + done, bits.subspan(done, size), chunk);
    narrow(chunk, to, out.subspan(done * to_bytes, size * to_bytes));
  }
}

void copy_elements(const StoredTensor& tensor, uint64_t begin, SafetensorsDtype to,
                   std::span<std::byte> out) {
  const size_t from_bytes = dtype_bits(tensor.dtype) / 8;
  const size_t count = out.size() / (dtype_bits(to) / 8);
  const std::span<const std::byte> stored =
      tensor.bytes.subspan(begin * from_bytes, count * from_bytes);
  if (tensor.scales != nullptr) return convert_scaled(tensor, begin, stored, to, out);
  if (tensor.dtype != to) return convert_floats(tensor.dtype, stored, to, out);
  std::memcpy(out.data(), stored.data(), out.size());
}

}  // namespace

bool is_convertible(SafetensorsDtype from, SafetensorsDtype to) {
  return from == to || (is_plain_float(from) && is_plain_float(to));
}

void fill_slice(const NamedSlice& slice, const StoredTensor& tensor) {
  const SafetensorsDtype wanted = stored_dtype(slice.view.scalar_type());
  const SafetensorsDtype readable = tensor.scales ? SafetensorsDtype::kF32 : tensor.dtype;
  MT_CHECK(is_convertible(readable, wanted), slice.name, ": no conversion from ",
           dtype_name(tensor.dtype), " to ", dtype_name(wanted));
  MT_CHECK(tensor.bytes.size() == tensor_bytes(tensor.dtype, slice.global_shape), slice.name, ": ",
           tensor.bytes.size(), " bytes do not fit the global shape");
  const bool is_on_host = slice.view.is_cpu();
  NamedSlice local = slice;
  if (!is_on_host) local.view = at::empty(slice.view.sizes(), slice.view.scalar_type());
  const SliceRuns runs(local);
  const int64_t to_bytes = dtype_bits(wanted) / 8;
  auto* data = static_cast<std::byte*>(local.view.mutable_data_ptr());
  for (int64_t i = 0; i < runs.count(); ++i) {
    const SliceRun run = runs.run(i);
    copy_elements(tensor, run.global, wanted,
                  {data + run.memory * to_bytes, static_cast<size_t>(runs.length() * to_bytes)});
  }
  if (!is_on_host) slice.view.copy_(local.view);
}

}  // namespace moetron
