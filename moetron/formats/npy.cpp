#include "moetron/formats/npy.h"

#include <charconv>
#include <limits>
#include <string_view>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr std::string_view kNpyMagic("\x93NUMPY\x01\x00", 8);
constexpr size_t kFixedBytes = 10;  // magic, version, 16-bit header length
constexpr size_t kAlignment = 64;   // of the data, as NumPy writes it

template <class T>
std::string type_code() {
  return (std::numeric_limits<T>::is_signed ? "<i" : "<u") + std::to_string(sizeof(T));
}

size_t code_bytes(const std::string& code) {
  return static_cast<size_t>(code.back() - '0');
}

std::string header_text(const std::string& code, const std::vector<int64_t>& shape) {
  std::string dims = "(" + std::to_string(shape[0]) + ",";
  if (shape.size() == 2) dims += " " + std::to_string(shape[1]);
  std::string text = "{'descr': '" + code + "', 'fortran_order': False, 'shape': " + dims + "), }";
  const size_t total = kFixedBytes + text.size() + 1;
  text.append((total + kAlignment - 1) / kAlignment * kAlignment - total, ' ');
  return text + '\n';
}

// Reads the header's dictionary, which NumPy writes in one form only. Takes pieces off the front.
class HeaderScanner {
 public:
  HeaderScanner(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  void expect(std::string_view piece) {
    MT_CHECK_INPUT(text_.starts_with(piece), path_, " has a .npy header without ", piece);
    text_.remove_prefix(piece.size());
  }
  bool accept(std::string_view piece) {
    if (!text_.starts_with(piece)) return false;
    text_.remove_prefix(piece.size());
    return true;
  }
  std::string take(size_t length) {
    const std::string piece(text_.substr(0, length));
    text_.remove_prefix(piece.size());
    return piece;
  }
  int64_t number() {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
    MT_CHECK_INPUT(error == std::errc() && value >= 0, path_, " has a bad .npy shape");
    text_.remove_prefix(static_cast<size_t>(end - text_.data()));
    return value;
  }

 private:
  std::string_view text_;
  std::string path_;
};

bool is_known_code(const std::string& code) {
  return code == "<i2" || code == "<i4" || code == "<u4" || code == "<i8";
}

}  // namespace

template <class T>
void write_npy(const std::filesystem::path& path, std::span<const T> values,
               const std::vector<int64_t>& shape) {
  MT_CHECK(shape.size() == 1 || shape.size() == 2, "a .npy file here has one or two axes");
  int64_t elements = 1;
  for (const int64_t dim : shape) elements *= dim;
  MT_CHECK(static_cast<size_t>(elements) == values.size(), path.string(), ": shape of ", elements,
           " elements for ", values.size(), " values");
  const std::string header = header_text(type_code<T>(), shape);
  FileWriter file(path);
  file.write(kNpyMagic);
  const char length[2] = {static_cast<char>(header.size() & 0xff),
                          static_cast<char>(header.size() >> 8)};
  file.write(std::string_view(length, 2));
  file.write(header);
  file.write(std::as_bytes(values));
  file.commit();
}

template void write_npy(const std::filesystem::path&, std::span<const int16_t>,
                        const std::vector<int64_t>&);
template void write_npy(const std::filesystem::path&, std::span<const int32_t>,
                        const std::vector<int64_t>&);
template void write_npy(const std::filesystem::path&, std::span<const uint32_t>,
                        const std::vector<int64_t>&);
template void write_npy(const std::filesystem::path&, std::span<const int64_t>,
                        const std::vector<int64_t>&);

NpyFile::NpyFile(const std::filesystem::path& path) : file_(path) {
  const std::string name = path.string();
  const std::string_view text = file_.text();
  MT_CHECK_INPUT(text.size() >= kFixedBytes && text.starts_with(kNpyMagic), name,
                 " is no .npy file of version 1.0");
  const size_t header_bytes = static_cast<unsigned char>(text[8]) |
                              static_cast<size_t>(static_cast<unsigned char>(text[9])) << 8;
  data_ = kFixedBytes + header_bytes;
  MT_CHECK_INPUT(text.size() >= data_, name, " is cut short inside its header");
  MT_CHECK_INPUT(data_ % kAlignment == 0, name, " has data at byte ", data_,
                 ", not at a multiple of ", kAlignment);
  HeaderScanner scanner(text.substr(kFixedBytes, header_bytes), name);
  scanner.expect("{'descr': '");
  type_ = scanner.take(3);
  MT_CHECK_INPUT(is_known_code(type_), name, " holds elements of type ", type_,
                 "; <i2, <i4, <u4 and <i8 are read");
  scanner.expect("', 'fortran_order': False, 'shape': (");
  shape_.push_back(scanner.number());
  scanner.expect(",");
  if (scanner.accept(" ")) shape_.push_back(scanner.number());
  scanner.expect("), }");
  uint64_t bytes = code_bytes(type_);
  for (const int64_t dim : shape_)
    MT_CHECK_INPUT(!__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes), name,
                   " has a shape that is too large");
  MT_CHECK_INPUT(bytes == text.size() - data_, name, " has ", text.size() - data_,
                 " bytes of data, its shape ", bytes);
}

size_t NpyFile::size() const {
  return (file_.size() - data_) / code_bytes(type_);
}

int64_t NpyFile::at(size_t index) const {
  MT_CHECK(index < size(), "element ", index, " of ", size());
  if (type_ == "<i4") return values<int32_t>()[index];
  if (type_ == "<u4") return values<uint32_t>()[index];
  if (type_ == "<i8") return values<int64_t>()[index];
  return values<int16_t>()[index];
}

template <class T>
std::span<const T> NpyFile::values() const {
  MT_CHECK_INPUT(type_ == type_code<T>(), path().string(), " holds ", type_, ", not ",
                 type_code<T>());
  return {reinterpret_cast<const T*>(file_.bytes().data() + data_), size()};
}

template std::span<const int16_t> NpyFile::values() const;
template std::span<const int32_t> NpyFile::values() const;
template std::span<const uint32_t> NpyFile::values() const;
template std::span<const int64_t> NpyFile::values() const;

}  // namespace moetron
