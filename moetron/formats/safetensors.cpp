#include "moetron/formats/safetensors.h"

#include <algorithm>
#include <set>

#include <simdjson.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference reader's limit
constexpr uint64_t kLengthBytes = 8;

// Parses one header; every complaint names the file.
class HeaderReader {
 public:
  HeaderReader(const std::filesystem::path& path, std::span<const std::byte> file)
      : path_(path.string()), file_(file) {}

  void read(std::vector<SafetensorsEntry>* tensors, SafetensorsMetadata* metadata) {
    const std::string_view text = header_text();
    simdjson::dom::parser parser;
    simdjson::dom::object header;
    const auto error = parser.parse(text.data(), text.size()).get(header);
    MT_CHECK_INPUT(!error, path_,
                   " has a header that is no JSON object: ", simdjson::error_message(error));
    std::set<std::string_view> names;
    for (const auto [name, value] : header) {
      MT_CHECK_INPUT(names.insert(name).second, path_, " holds \"", name, "\" twice");
      if (name == "__metadata__")
        read_metadata(value, metadata);
      else
        tensors->push_back(read_tensor(name, value));
    }
    check_places(tensors, kLengthBytes + text.size());
  }

 private:
  std::string_view header_text() const {
    MT_CHECK_INPUT(file_.size() >= kLengthBytes, path_, " is no safetensors file: it has only ",
                   file_.size(), " bytes");
    uint64_t length = 0;
    for (size_t i = 0; i < kLengthBytes; ++i)
      length |= std::to_integer<uint64_t>(file_[i]) << (8 * i);
    MT_CHECK_INPUT(length <= kMaxHeaderBytes, path_, " is no safetensors file: header length ",
                   length, " is above ", kMaxHeaderBytes);
    MT_CHECK_INPUT(length <= file_.size() - kLengthBytes, path_, " is cut short: header of ",
                   length, " bytes in a file of ", file_.size());
    const std::string_view text(reinterpret_cast<const char*>(file_.data()) + kLengthBytes,
                                static_cast<size_t>(length));
    MT_CHECK_INPUT(text.starts_with('{'), path_,
                   " is no safetensors file: its header does not begin with {");
    return text;
  }

  void read_metadata(simdjson::dom::element value, SafetensorsMetadata* metadata) const {
    simdjson::dom::object object;
    MT_CHECK_INPUT(!value.get(object), path_, " has a __metadata__ that is no object");
    std::set<std::string_view> keys;
    for (const auto [key, entry] : object) {
      std::string_view text;
      MT_CHECK_INPUT(!entry.get(text), path_, " has a metadata value that is no string: ", key);
      MT_CHECK_INPUT(keys.insert(key).second, path_, " holds metadata \"", key, "\" twice");
      metadata->emplace_back(key, text);
    }
  }

  SafetensorsEntry read_tensor(std::string_view name, simdjson::dom::element value) const {
    simdjson::dom::object object;
    MT_CHECK_INPUT(!value.get(object), path_, ": tensor ", name, " is no object");
    simdjson::dom::element dtype, shape, offsets;
    int num_dtypes = 0, num_shapes = 0, num_offsets = 0;
    for (const auto [key, field] : object) {
      if (key == "dtype") dtype = field, ++num_dtypes;
      if (key == "shape") shape = field, ++num_shapes;
      if (key == "data_offsets") offsets = field, ++num_offsets;
    }
    const bool complete = num_dtypes == 1 && num_shapes == 1 && num_offsets == 1 &&
                          dtype.is<std::string_view>() && shape.is<simdjson::dom::array>() &&
                          offsets.is<simdjson::dom::array>();
    MT_CHECK_INPUT(complete, path_, ": tensor ", name,
                   " needs dtype, shape and data_offsets, each once");
    return place_tensor(name, std::string_view(dtype), shape, offsets);
  }

  SafetensorsEntry place_tensor(std::string_view name, std::string_view dtype,
                                simdjson::dom::array shape, simdjson::dom::array offsets) const {
    SafetensorsEntry tensor;
    tensor.name = name;
    const auto known = dtype_from_name(dtype);
    MT_CHECK_INPUT(known, path_, ": tensor ", name, " has the unknown dtype \"", dtype, "\"");
    tensor.dtype = *known;
    for (const auto element : shape) {
      int64_t dim = 0;
      MT_CHECK_INPUT(!element.get(dim) && dim >= 0, path_, ": tensor ", name,
                     " has a dimension that is no count");
      tensor.shape.push_back(dim);
    }
    std::vector<uint64_t> range;
    for (const auto element : offsets) {
      uint64_t offset = 0;
      MT_CHECK_INPUT(!element.get(offset), path_, ": tensor ", name, " has a bad data offset");
      range.push_back(offset);
    }
    MT_CHECK_INPUT(range.size() == 2 && range[0] <= range[1], path_, ": tensor ", name,
                   " needs two data offsets, begin <= end");
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    MT_CHECK_INPUT(bytes, path_, ": tensor ", name, " has a shape too large or of broken bytes");
    MT_CHECK_INPUT(*bytes == range[1] - range[0], path_, ": tensor ", name, " takes ", *bytes,
                   " bytes by its shape, ", range[1] - range[0], " by its offsets");
    tensor.offset = range[0];
    tensor.bytes = *bytes;
    return tensor;
  }

  // Sorts by offset, demands that the data is covered without holes or overlaps, and turns the
  // offsets into places in the file.
  void check_places(std::vector<SafetensorsEntry>* tensors, uint64_t data_begin) const {
    std::stable_sort(tensors->begin(), tensors->end(),
                     [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                       return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
                     });
    const uint64_t data_bytes = file_.size() - data_begin;
    uint64_t end = 0;
    for (SafetensorsEntry& tensor : *tensors) {
      MT_CHECK_INPUT(tensor.offset == end, path_, ": tensor ", tensor.name, " begins at ",
                     tensor.offset, ", but the one before it ends at ", end);
      MT_CHECK_INPUT(tensor.bytes <= data_bytes - end, path_, " is cut short: tensor ", tensor.name,
                     " ends at ", end + tensor.bytes, " of ", data_bytes, " bytes");
      end += tensor.bytes;
      tensor.offset += data_begin;
    }
    MT_CHECK_INPUT(end == data_bytes, path_, " holds ", data_bytes, " bytes of data, its header ",
                   end);
  }

  std::string path_;
  std::span<const std::byte> file_;
};

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  HeaderReader(path, file_.bytes()).read(&tensors_, &metadata_);
  for (size_t i = 0; i < tensors_.size(); ++i) places_[tensors_[i].name] = i;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto place = places_.find(name);
  return place == places_.end() ? nullptr : &tensors_[place->second];
}

const SafetensorsEntry& SafetensorsFile::at(std::string_view name) const {
  const SafetensorsEntry* tensor = find(name);
  MT_CHECK_INPUT(tensor != nullptr, path().string(), " holds no tensor ", name);
  return *tensor;
}

std::span<const std::byte> SafetensorsFile::bytes(const SafetensorsEntry& tensor) const {
  return file_.bytes().subspan(tensor.offset, tensor.bytes);
}

}  // namespace moetron
