#include "moetron/convert/model_source.h"

#include <map>

#include "moetron/base/error.h"
#include "moetron/base/path.h"

namespace moetron {

ModelSource::ModelSource(const std::filesystem::path& path) {
  const ModelFiles files(path);
  std::map<std::filesystem::path, const FileReader*> readers;
  for (const std::string& name : files.names()) {
    const SafetensorsEntry& entry = files.at(name);
    const std::filesystem::path& file = files.file_of(name);
    MT_CHECK_INPUT(dtype_bits(entry.dtype) % 8 == 0, file.string(), ": tensor ", name, " is ",
                   dtype_name(entry.dtype), ", whose elements are no whole bytes");
    const FileReader*& reader = readers[file];
    if (reader == nullptr) reader = files_.emplace_back(std::make_unique<FileReader>(file)).get();
    tensors_.push_back(entry);
    places_.push_back({reader, entry.offset});
  }
}

void ModelSource::read(size_t index, uint64_t begin, uint64_t count,
                       std::span<std::byte> bytes) const {
  const auto item_bytes = static_cast<uint64_t>(dtype_bits(tensors_[index].dtype) / 8);
  MT_CHECK(bytes.size() == count * item_bytes, tensors_[index].name, ": ", bytes.size(),
           " bytes for ", count, " elements");
  places_[index].file->read(places_[index].offset + begin * item_bytes, bytes);
}

}  // namespace moetron
