// Files of torch.save: a zip archive with a pickle, and each storage of a tensor in an entry of its
// own. Read without executing the pickle; written so that torch.load opens them, with mmap=True
// too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "moetron/formats/pickle.h"
#include "moetron/formats/safetensors.h"
#include "moetron/formats/zip.h"

namespace moetron {

// The dtype that torch calls torch.NAME ("bfloat16"), nothing where safetensors has none; and the
// other way round, an InternalError where torch has none.
std::optional<SafetensorsDtype> dtype_from_torch(std::string_view name);
std::string_view torch_dtype_name(SafetensorsDtype dtype);
// The class torch.NAME of a dtype's storages ("BFloat16Storage").
std::string_view torch_storage_name(SafetensorsDtype dtype);

// A tensor whose elements lie in a row in the file: bytes [offset, offset + bytes), within an entry
// that others may share.
struct TorchTensor {
  SafetensorsDtype dtype = SafetensorsDtype::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  ZipEntry storage = {};
};

// What a file holds; the file itself is closed again. The constructor throws InputError, naming the
// file, for what is no zip of torch.save, files of torch before 1.6 among it, and for a pickle that
// has not the CRC that was noted. Those of tensors' data are check_records()'s business.
class TorchFile {
 public:
  explicit TorchFile(const std::filesystem::path& path);
  // What torch.save wrote into bytes [begin, begin + bytes) of a file, as a .distcp has many; those
  // bytes are within it. Places of tensors are those in the file.
  TorchFile(const std::filesystem::path& path, uint64_t begin, uint64_t bytes);

  const std::filesystem::path& path() const { return path_; }
  const Pickle& pickle() const { return *pickle_; }
  // Whether torch.save noted CRCs, as it does unless it is told not to.
  bool has_crcs() const { return has_crcs_; }
  // What lies in the saved dictionary under `key`; nullptr where there is nothing.
  const PickleValue* find(std::string_view key) const;
  // Of an argparse.Namespace or a like object its attributes; an InputError where it has none.
  const PickleValue& attributes(const PickleValue& value, std::string_view name) const;
  // InputError, with the name, for a value that is no tensor, lies beyond its storage, or whose
  // elements lie otherwise than in a row.
  TorchTensor tensor(const PickleValue& value, std::string_view name) const;

 private:
  void open(const FileWindow& file);
  std::string read_entry(const FileWindow& file, const std::string& entry) const;

  std::filesystem::path path_;
  bool has_crcs_ = false;
  ZipDirectory entries_;
  std::string prefix_;  // of every entry's name
  std::optional<Pickle> pickle_;
};

// A value as a file's dictionary or namespace holds it. TorchDtype becomes torch.bfloat16.
struct TorchDtype {
  SafetensorsDtype dtype;
};
struct TorchValue {
  using List = std::vector<TorchValue>;
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, TorchDtype, List> value;
};
using TorchValues = std::vector<std::pair<std::string, TorchValue>>;

// A dictionary of tensors, an OrderedDict in the file.
struct TorchStateDict {
  std::string key;  // in the file's dictionary
  std::vector<SafetensorsTensor> tensors;
  std::vector<std::string> names_of_none;  // keys whose value is None
};

struct TorchContents {
  TorchValues args;  // an argparse.Namespace under "args"
  TorchValues values;
  std::vector<TorchStateDict> models;
};

using TorchSink = std::function<void(std::span<const std::byte>)>;
// Gives all bytes of tensor `tensor` of model `model` to the sink, in order and in any portions.
using TorchSource = std::function<void(size_t model, size_t tensor, const TorchSink& sink)>;

// Writes a file, which appears whole or not at all. `source` is called for each tensor in order.
void write_torch_file(const std::filesystem::path& path, const TorchContents& contents,
                      const TorchSource& source);

}  // namespace moetron
