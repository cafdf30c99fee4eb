// For tests: the files of torch.distributed.checkpoint, written by hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/base/file.h"
#include "moetron/formats/dist_metadata.h"
#include "moetron/formats/torch_file.h"
#include "moetron/formats/zip.h"

namespace moetron::dist_files {

inline std::string text(std::string_view value) {
  const auto size = static_cast<uint32_t>(value.size());
  std::string bytes = "X";
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(size >> (8 * i) & 0xff);
  return bytes + std::string(value);
}

inline std::string number(uint64_t value) {
  std::string bytes = "\x8a\x08";
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  return bytes;
}

// An object of a class with a dict of attributes, names and values in turn.
inline std::string object(const std::string& module, const std::string& name,
                          const std::string& attributes) {
  return "c" + module + "\n" + name + "\n)\x81}(" + attributes + "ub";
}

inline std::string tuple(const std::vector<int64_t>& numbers) {
  std::string bytes = "(";
  for (const int64_t one : numbers) bytes += number(static_cast<uint64_t>(one));
  return bytes + "t";
}

inline std::string size(const std::vector<int64_t>& dims) {
  return "ctorch\nSize\n" + tuple(dims) + "\x85R";
}

// The pickle of .metadata, without what nobody reads.
inline std::string metadata(const std::vector<DistTensor>& tensors,
                            const std::vector<std::string>& files) {
  const std::string module = "torch.distributed.checkpoint.metadata";
  std::string told, places;
  for (const DistTensor& tensor : tensors) {
    std::string chunks;
    for (const DistBox& box : tensor.boxes) {
      chunks += object(module, "ChunkStorageMetadata",
                       text("offsets") + size(box.offsets) + text("sizes") + size(box.sizes));
      places += object(module, "MetadataIndex",
                       text("fqn") + text(tensor.name) + text("offset") + size(box.offsets));
      places += object("torch.distributed.checkpoint.filesystem", "_StorageInfo",
                       text("relative_path") + text(files.at(box.file)) + text("offset") +
                           number(box.begin) + text("length") + number(box.bytes));
    }
    const std::string properties = "c" + module + "\nTensorProperties\n)\x81(ctorch\n" +
                                   std::string(torch_dtype_name(*tensor.dtype)) + "\nN\x89N\x89tb";
    told +=
        text(tensor.name) + object(module, "TensorStorageMetadata",
                                   text("properties") + properties + text("size") +
                                       size(tensor.shape) + text("chunks") + "](" + chunks + "e");
  }
  return "\x80\x02" +
         object(module, "Metadata",
                text("state_dict_metadata") + "}(" + told + "u" + text("storage_data") + "}(" +
                    places + "u") +
         ".";
}

// What torch.save writes of a tensor, as a file of its own.
inline std::string saved_tensor(SafetensorsDtype dtype, const std::vector<int64_t>& shape,
                                std::span<const std::byte> bytes,
                                const std::filesystem::path& scratch) {
  std::vector<int64_t> strides(shape.size(), 1);
  int64_t count = 1;
  for (size_t dim = shape.size(); dim-- > 0;) {
    strides[dim] = count;
    count *= shape[dim];
  }
  const std::string storage = "(" + text("storage") + "ctorch\n" +
                              std::string(torch_storage_name(dtype)) + "\n" + text("0") +
                              text("cpu") + number(static_cast<uint64_t>(count)) + "tQ";
  const std::string pickle =
      "\x80\x02"
      "ctorch._utils\n_rebuild_tensor_v2\n(" +
      storage + number(0) + tuple(shape) + tuple(strides) +
      "\x89"
      "ccollections\nOrderedDict\n)RtR.";
  {
    FileWriter file(scratch);
    ZipWriter zip(file);
    zip.add("archive/data.pkl", pickle);
    zip.add("archive/byteorder", "little");
    zip.begin("archive/data/0", bytes.size());
    zip.write(bytes);
    zip.finish();
    file.commit();
  }
  std::string result = read_file(scratch);
  std::filesystem::remove(scratch);
  return result;
}

}  // namespace moetron::dist_files
