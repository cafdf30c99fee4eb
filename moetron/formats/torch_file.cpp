#include "moetron/formats/torch_file.h"

#include <array>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using Kind = PickleValue::Kind;

// A pickle may refer to one long text or tuple from many places: what is copied of it is bounded.
constexpr size_t kMaxName = 1024;
constexpr size_t kMaxDims = 64;

struct StorageRow {
  SafetensorsDtype dtype;
  std::string_view name;     // torch.NAME
  std::string_view storage;  // torch.NAME; empty where torch has none but the untyped one
};

constexpr std::array kStorageRows = {
    StorageRow{SafetensorsDtype::kF32, "float32", "FloatStorage"},
    StorageRow{SafetensorsDtype::kBF16, "bfloat16", "BFloat16Storage"},
    StorageRow{SafetensorsDtype::kF16, "float16", "HalfStorage"},
    StorageRow{SafetensorsDtype::kF64, "float64", "DoubleStorage"},
    StorageRow{SafetensorsDtype::kI64, "int64", "LongStorage"},
    StorageRow{SafetensorsDtype::kI32, "int32", "IntStorage"},
    StorageRow{SafetensorsDtype::kI16, "int16", "ShortStorage"},
    StorageRow{SafetensorsDtype::kI8, "int8", "CharStorage"},
    StorageRow{SafetensorsDtype::kU8, "uint8", "ByteStorage"},
    StorageRow{SafetensorsDtype::kBool, "bool", "BoolStorage"},
    StorageRow{SafetensorsDtype::kF8E4M3, "float8_e4m3fn", ""},
    StorageRow{SafetensorsDtype::kF8E5M2, "float8_e5m2", ""},
};

// Reads the calls by which torch rebuilds a tensor.
class TensorReader {
 public:
  TensorReader(const TorchFile& file, const ZipDirectory& entries, const std::string& prefix,
               std::string_view name)
      : pickle_(file.pickle()),
        entries_(entries),
        prefix_(prefix),
        what_(concat(file.path().string(), ": ", name)) {}

  TorchTensor read(const PickleValue& value) {
    const PickleValue* call = &value;
    // A parameter is a tensor with a flag around it.
    if (is_call(value, "_rebuild_parameter")) call = &argument(value, 0, Kind::kCall);
    const bool is_untyped = is_call(*call, "_rebuild_tensor_v3");
    if (!is_untyped && !is_call(*call, "_rebuild_tensor_v2")) refuse(*call);
    TorchTensor tensor;
    const PickleValue& storage_id = argument(*call, 0, Kind::kPersistent);
    tensor.dtype = is_untyped ? dtype_of(argument(*call, 6, Kind::kGlobal))
                              : storage_dtype(argument(storage_id, 1, Kind::kGlobal));
    const ZipEntry storage = find_storage(storage_id);
    tensor.shape = counts(argument(*call, 2, Kind::kTuple));
    check_strides(tensor.shape, counts(argument(*call, 3, Kind::kTuple)));
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    const int64_t begin = argument(*call, 1, Kind::kInt).integer;
    uint64_t skipped = 0;
    const bool fits =
        bytes && begin >= 0 &&
        !__builtin_mul_overflow(static_cast<uint64_t>(begin),
                                static_cast<uint64_t>(dtype_bits(tensor.dtype) / 8), &skipped) &&
        skipped <= storage.bytes && *bytes <= storage.bytes - skipped;
    MT_CHECK_INPUT(fits, what_, " lies beyond its storage of ", storage.bytes, " bytes");
    tensor.offset = storage.offset + skipped;
    tensor.bytes = *bytes;
    tensor.storage = storage;
    return tensor;
  }

 private:
  bool is_call(const PickleValue& value, std::string_view name) const {
    return value.kind == Kind::kCall && pickle_.is_global(value.callee, "torch._utils", name);
  }

  [[noreturn]] void refuse(const PickleValue& value) const {
    const PickleValue& callee = pickle_.at(value.callee);
    const bool has_name = value.kind == Kind::kCall && callee.kind == Kind::kGlobal;
    throw InputError(has_name ? concat(what_, " is no tensor but made by ",
                                       pickle_.at(callee.callee).text, ".", callee.text)
                              : concat(what_, " is no tensor"));
  }

  const PickleValue& argument(const PickleValue& call, size_t index, Kind kind) const {
    const PickleValue& arguments = pickle_.at(call.arguments);
    const bool there =
        index < arguments.items.size() && pickle_.at(arguments.items[index]).kind == kind;
    MT_CHECK_INPUT(there, what_, " is a tensor made of what torch.save does not write");
    return pickle_.at(arguments.items[index]);
  }

  // A storage is ("storage", class, key, place, number of elements) outside of the pickle.
  ZipEntry find_storage(const PickleValue& storage) const {
    const std::string_view key = argument(storage, 2, Kind::kText).text;
    MT_CHECK_INPUT(key.size() <= kMaxName, what_, " has its data under a name of ", key.size(),
                   " bytes");
    const std::string entry = concat(prefix_, "data/", key);
    const auto place = entries_.find(entry);
    MT_CHECK_INPUT(place != entries_.end(), what_, " has its data in ", entry,
                   ", which the file lacks");
    return place->second;
  }
  SafetensorsDtype storage_dtype(const PickleValue& global) const {
    for (const StorageRow& row : kStorageRows)
      if (!row.storage.empty() && row.storage == global.text) return row.dtype;
    throw InputError(concat(what_, " has its data in a ", global.text, ", which is not read"));
  }

  SafetensorsDtype dtype_of(const PickleValue& global) const {
    const auto dtype = dtype_from_torch(global.text);
    MT_CHECK_INPUT(dtype, what_, " has the dtype ", global.text, ", which is not read");
    return *dtype;
  }

  std::vector<int64_t> counts(const PickleValue& tuple) const {
    MT_CHECK_INPUT(tuple.items.size() <= kMaxDims, what_, " has ", tuple.items.size(),
                   " dimensions");
    std::vector<int64_t> counts;
    for (const PickleId id : tuple.items) {
      const PickleValue& count = pickle_.at(id);
      MT_CHECK_INPUT(count.kind == Kind::kInt && count.integer >= 0, what_,
                     " has a size or stride that is no count");
      counts.push_back(count.integer);
    }
    return counts;
  }

  // Where a dimension has one element its stride does not matter; in an empty tensor none does.
  void check_strides(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) const {
    MT_CHECK_INPUT(shape.size() == strides.size(), what_, " has ", shape.size(), " sizes and ",
                   strides.size(), " strides");
    int64_t expected = 1;
    bool in_a_row = true;
    for (size_t dim = shape.size(); dim-- > 0;) {
      if (shape[dim] == 0) return;
      if (shape[dim] > 1 && strides[dim] != expected) in_a_row = false;
      if (__builtin_mul_overflow(expected, shape[dim], &expected)) return;  // refused by its bytes
    }
    MT_CHECK_INPUT(in_a_row, what_,
                   " is a view whose elements do not lie in a row; save it as .contiguous()");
  }

  const Pickle& pickle_;
  const ZipDirectory& entries_;
  const std::string& prefix_;
  std::string what_;
};

// Every entry lies in one folder, which is named as the file was when it was saved.
std::string find_prefix(const ZipDirectory& entries, const std::string& name) {
  constexpr std::string_view pickle = "/data.pkl";
  for (const auto& [entry, place] : entries)
    if (entry.ends_with(pickle) && entry.find('/') == entry.size() - pickle.size())
      return entry.substr(0, entry.size() - pickle.size() + 1);
  throw InputError(concat(name, " is no file of torch.save: the zip archive has no data.pkl"));
}

}  // namespace

std::optional<SafetensorsDtype> dtype_from_torch(std::string_view name) {
  for (const StorageRow& row : kStorageRows)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

std::string_view torch_dtype_name(SafetensorsDtype dtype) {
  for (const StorageRow& row : kStorageRows)
    if (row.dtype == dtype) return row.name;
  throw InternalError(concat("torch has no ", dtype_name(dtype)));
}

std::string_view torch_storage_name(SafetensorsDtype dtype) {
  for (const StorageRow& row : kStorageRows)
    if (row.dtype == dtype && !row.storage.empty()) return row.storage;
  throw InternalError(concat("torch has no storage of ", dtype_name(dtype)));
}

TorchFile::TorchFile(const std::filesystem::path& path) : path_(path) {
  open(FileReader(path));
}

TorchFile::TorchFile(const std::filesystem::path& path, uint64_t begin, uint64_t bytes)
    : path_(path) {
  const FileReader file(path);
  MT_CHECK_INPUT(begin <= file.size() && bytes <= file.size() - begin, path.string(),
                 " is cut short: it has ", file.size(), " bytes, and ", bytes, " are needed from ",
                 begin, " on");
  open(FileWindow(file, begin, bytes));
  for (auto& [name, entry] : entries_) entry.offset += begin;
}

void TorchFile::open(const FileWindow& file) {
  const std::string name = path_.string();
  MT_CHECK_INPUT(is_zip(file), name,
                 " is no zip archive, as torch.save writes them since torch 1.6; load it there and "
                 "save it again");
  entries_ = read_zip_directory(file, name);
  prefix_ = find_prefix(entries_, name);
  has_crcs_ = moetron::has_crcs(entries_);
  const auto order = entries_.find(prefix_ + "byteorder");
  MT_CHECK_INPUT(order == entries_.end() ||
                     (order->second.bytes == 6 && read_entry(file, order->first) == "little"),
                 name, " has its numbers in another order than little-endian");
  pickle_.emplace(read_entry(file, prefix_ + "data.pkl"), name);
}

std::string TorchFile::read_entry(const FileWindow& file, const std::string& entry) const {
  const ZipEntry& place = entries_.find(entry)->second;
  std::string text(size_t(place.bytes), '\0');
  const auto bytes = std::as_writable_bytes(std::span(text));
  file.read(place.offset, bytes);
  if (has_crcs_) check_crc(path_, entry, place.crc, zip_crc(bytes));
  return text;
}

const PickleValue* TorchFile::find(std::string_view key) const {
  return pickle_->find(pickle_->root(), key);
}

const PickleValue& TorchFile::attributes(const PickleValue& value, std::string_view name) const {
  const PickleValue& state = pickle_->at(value.state);
  MT_CHECK_INPUT(value.kind == Kind::kCall && state.kind == Kind::kDict, path_.string(), ": ", name,
                 " is no namespace");
  return state;
}

TorchTensor TorchFile::tensor(const PickleValue& value, std::string_view name) const {
  return TensorReader(*this, entries_, prefix_, name).read(value);
}

}  // namespace moetron
