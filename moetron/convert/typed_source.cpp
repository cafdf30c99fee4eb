#include "moetron/convert/typed_source.h"

#include <algorithm>
#include <memory>

#include "moetron/arch/tensors.h"
#include "moetron/formats/float_types.h"

namespace moetron {

TypedSource::TypedSource(const TensorSource& source, SafetensorsDtype dtype)
    : source_(source), tensors_(source.tensors()) {
  for (SafetensorsTensor& tensor : tensors_) {
    const bool stays = tensor.name.ends_with(tensors::kRouterBias.name);
    if (is_plain_float(tensor.dtype) && !stays) tensor.dtype = dtype;
  }
}

void TypedSource::read(size_t index, uint64_t begin, uint64_t count,
                       std::span<std::byte> bytes) const {
  const SafetensorsDtype stored = source_.tensors()[index].dtype;
  if (stored == tensors_[index].dtype) return source_.read(index, begin, count, bytes);
  // A piece at a time, so that what is read takes little beside what is asked for.
  constexpr uint64_t kPiece = uint64_t{1} << 20;
  const auto stored_bytes = static_cast<uint64_t>(dtype_bits(stored) / 8);
  const auto item_bytes = static_cast<uint64_t>(dtype_bits(tensors_[index].dtype) / 8);
  const auto memory =
      std::make_unique_for_overwrite<std::byte[]>(std::min(kPiece, count) * stored_bytes);
  for (uint64_t done = 0; done < count; done += kPiece) {
    const uint64_t size = std::min(kPiece, count - done);
    const std::span<std::byte> piece(memory.get(), size * stored_bytes);
    source_.read(index, begin + done, size, piece);
    convert_floats(stored, piece, tensors_[index].dtype,
                   bytes.subspan(done * item_bytes, size * item_bytes));
  }
}

}  // namespace moetron
