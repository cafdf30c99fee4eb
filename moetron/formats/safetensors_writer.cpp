#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/formats/safetensors.h"

namespace moetron {
namespace {

// A JSON string with its quotes; the reference writer escapes the same characters.
std::string quoted(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    throw InternalError("a safetensors name or metadata value is not valid UTF-8");
  }
}

std::string header_json(const std::vector<SafetensorsEntry>& tensors,
                        const SafetensorsMetadata& metadata) {
  std::string json = "{";
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) json += quoted(key) + ":" + quoted(value) + ",";
    json.back() = '}';
    json += ',';
  }
  for (const SafetensorsEntry& tensor : tensors) {
    json += quoted(tensor.name) + ":{\"dtype\":\"";
    json += dtype_name(tensor.dtype);
    json += "\",\"shape\":[";
    for (const int64_t dim : tensor.shape) json += std::to_string(dim) + ",";
    if (!tensor.shape.empty()) json.pop_back();
    const uint64_t begin = tensor.offset;  // still relative to the data
    json += "],\"data_offsets\":[" + std::to_string(begin) + "," +
            std::to_string(begin + tensor.bytes) + "]},";
  }
  if (json.back() == ',') json.pop_back();
  return json + "}";
}

std::string length_field(uint64_t length) {
  std::string field;
  for (int i = 0; i < 8; ++i) field += static_cast<char>(length >> (8 * i) & 0xff);
  return field;
}

void check_names(const std::vector<SafetensorsTensor>& tensors) {
  std::set<std::string_view> names;
  for (const SafetensorsTensor& tensor : tensors) {
    MT_CHECK(tensor.name != "__metadata__", "a tensor cannot have the name __metadata__");
    MT_CHECK(names.insert(tensor.name).second, "tensor ", tensor.name, " is given twice");
  }
}

}  // namespace

const SafetensorsEntry& SafetensorsLayout::at(std::string_view name) const {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(),
                   [&](const SafetensorsEntry& entry) { return entry.name == name; });
  MT_CHECK(found != tensors.end(), "no tensor ", name, " in this layout");
  return *found;
}

SafetensorsLayout layout_safetensors(std::vector<SafetensorsTensor> tensors,
                                     const SafetensorsMetadata& metadata) {
  check_names(tensors);
  std::sort(tensors.begin(), tensors.end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
              return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
            });
  SafetensorsLayout layout;
  uint64_t data_bytes = 0;
  for (SafetensorsTensor& tensor : tensors) {
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    MT_CHECK(bytes, "tensor ", tensor.name, " has a shape that does not fit whole bytes");
    layout.tensors.push_back({std::move(tensor), data_bytes, *bytes});
    data_bytes += *bytes;
  }
  std::string json = header_json(layout.tensors, metadata);
  json.resize((json.size() + 7) / 8 * 8, ' ');  // the data then starts at a multiple of 8
  layout.header = length_field(json.size()) + json;
  for (SafetensorsEntry& tensor : layout.tensors) tensor.offset += layout.header.size();
  layout.file_bytes = layout.header.size() + data_bytes;
  return layout;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<SafetensorsTensor> tensors,
                                     const SafetensorsMetadata& metadata)
    : layout_(layout_safetensors(std::move(tensors), metadata)), file_(path) {
  file_.write(layout_.header);
  skip_empty_tensors();
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  MT_CHECK(next_ < layout_.tensors.size(), "bytes of ", name, " after the last tensor");
  const SafetensorsEntry& tensor = layout_.tensors[next_];
  MT_CHECK(tensor.name == name, "bytes of ", name, " where ", tensor.name, " is due");
  MT_CHECK(bytes.size() <= tensor.bytes - written_, name, " has ", tensor.bytes, " bytes, not ",
           written_ + bytes.size());
  file_.write(bytes);
  written_ += bytes.size();
  skip_empty_tensors();
}

// Moves past the finished tensor and any that have no bytes.
void SafetensorsWriter::skip_empty_tensors() {
  while (next_ < layout_.tensors.size() && written_ == layout_.tensors[next_].bytes) {
    ++next_;
    written_ = 0;
  }
}

void SafetensorsWriter::commit() {
  MT_CHECK(next_ == layout_.tensors.size(), "tensor ", layout_.tensors[next_].name,
           " is incomplete: ", written_, " of ", layout_.tensors[next_].bytes, " bytes");
  file_.commit();
}

}  // namespace moetron
