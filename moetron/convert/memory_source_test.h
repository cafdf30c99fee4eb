// For tests: tensors in memory as a source, and as files.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "moetron/base/file.h"
#include "moetron/convert/tensor_source.h"
#include "moetron/formats/float_types.h"
#include "moetron/formats/safetensors_writer_test.h"

namespace moetron {

class MemorySource : public TensorSource {
 public:
  void add(const std::string& name, SafetensorsDtype dtype, std::vector<int64_t> shape,
           const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_bits(dtype) / 8));
    narrow(values, dtype, bytes);
    add_bytes({name, dtype, std::move(shape)}, std::move(bytes));
  }
  void add_bytes(const SafetensorsTensor& tensor, std::vector<std::byte> bytes) {
    tensors_.push_back(tensor);
    std::sort(tensors_.begin(), tensors_.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    bytes_[tensor.name] = std::move(bytes);
  }
  std::vector<std::byte>& bytes(const std::string& name) { return bytes_.at(name); }

  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override {
    const auto item_bytes = static_cast<uint64_t>(dtype_bits(tensors_[index].dtype) / 8);
    MT_CHECK(bytes.size() == count * item_bytes, "a read of another size");
    const std::vector<std::byte>& all = bytes_.at(tensors_[index].name);
    MT_CHECK((begin + count) * item_bytes <= all.size(), "a read behind the end");
    std::memcpy(bytes.data(), all.data() + begin * item_bytes, bytes.size());
  }

  // As a model directory with that config.json.
  void write(const std::filesystem::path& folder, const std::string& config) const {
    std::filesystem::create_directories(folder);
    write_file(folder / "config.json", config);
    SafetensorsWriter writer(folder / "model.safetensors", tensors_);
    for (const SafetensorsEntry& entry : std::vector(writer.tensors()))
      writer.write(entry.name, bytes_.at(entry.name));
    writer.commit();
  }

 private:
  std::vector<SafetensorsTensor> tensors_;
  std::map<std::string, std::vector<std::byte>> bytes_;
};

// All of a tensor, in fp32.
inline std::vector<float> values_of(const TensorSource& source, const std::string& name) {
  const size_t index = find_tensor(source, name);
  const SafetensorsTensor& tensor = source.tensors().at(index);
  uint64_t count = 1;
  for (const int64_t dim : tensor.shape) count *= static_cast<uint64_t>(dim);
  std::vector<std::byte> bytes(count * static_cast<size_t>(dtype_bits(tensor.dtype) / 8));
  source.read(index, 0, count, bytes);
  std::vector<float> values(count);
  widen(tensor.dtype, bytes, values);
  return values;
}

}  // namespace moetron
