// The safetensors container: 8 bytes of little-endian header length, a JSON header, then the
// tensors back to back. Files that we write equal those of the reference library byte for byte;
// files that we read are checked by its rules before any offset is used.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moetron/base/file.h"

namespace moetron {

// In the format's own order, which also decides where a writer places a tensor.
enum class SafetensorsDtype : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

std::string_view dtype_name(SafetensorsDtype dtype);  // "BF16"
std::optional<SafetensorsDtype> dtype_from_name(std::string_view name);
int dtype_bits(SafetensorsDtype dtype);

// Bytes of a tensor; nothing when the product overflows, a dimension is negative, or the bits do
// not fill whole bytes.
std::optional<uint64_t> tensor_bytes(SafetensorsDtype dtype, std::span<const int64_t> shape);

// "[3, 4]".
std::string shape_text(std::span<const int64_t> shape);

struct SafetensorsTensor {
  std::string name;
  SafetensorsDtype dtype = SafetensorsDtype::kF32;
  std::vector<int64_t> shape;  // row-major; {} is a scalar
};

// A tensor with its place: bytes [offset, offset + bytes) of the file.
struct SafetensorsEntry : SafetensorsTensor {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

// A file's header and places, known before any data: what writers in parallel share.
struct SafetensorsLayout {
  std::string header;                     // the first bytes of the file, length field included
  std::vector<SafetensorsEntry> tensors;  // in file order
  uint64_t file_bytes = 0;
};

// Places the tensors in canonical order: widest type first, then by name.
SafetensorsLayout layout_safetensors(std::vector<SafetensorsTensor> tensors,
                                     const SafetensorsMetadata& metadata = {{"format", "pt"}});

// A file mapped for reading. The constructor throws InputError, naming the file and what is wrong,
// unless every rule of the format holds.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<SafetensorsEntry>& tensors() const { return tensors_; }  // in file order
  const SafetensorsMetadata& metadata() const { return metadata_; }

  const SafetensorsEntry* find(std::string_view name) const;  // nullptr when absent
  const SafetensorsEntry& at(std::string_view name) const;    // InputError when absent
  // The data may start at any byte address: copy before reading wide elements.
  std::span<const std::byte> bytes(const SafetensorsEntry& tensor) const;

 private:
  MappedFile file_;
  std::vector<SafetensorsEntry> tensors_;
  std::map<std::string, size_t, std::less<>> places_;
  SafetensorsMetadata metadata_;
};

}  // namespace moetron
