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

}  // namespace moetron
