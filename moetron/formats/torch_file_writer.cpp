#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>

#include "moetron/base/error.h"
#include "moetron/formats/torch_file.h"

namespace moetron {
namespace {

constexpr std::string_view kPrefix = "archive/";

uint64_t num_elements(const SafetensorsTensor& tensor) {
  return static_cast<uint64_t>(
      std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>()));
}

// Writes protocol 2, the oldest that has all that is needed. It keeps nothing to refer back to:
// what repeats are the names of a few classes.
class PickleWriter {
 public:
  std::string write(const TorchContents& contents) {
    out_ = "\x80\x02}(";
    text("args");
    out_ += "cargparse\nNamespace\n)\x81}(";
    add(contents.args);
    out_ += "ub";
    add(contents.values);
    for (const TorchStateDict& model : contents.models) {
      text(model.key);
      out_ += "ccollections\nOrderedDict\n)R(";
      for (const SafetensorsTensor& entry : model.tensors) {
        text(entry.name);
        tensor(entry);
      }
      for (const std::string& name : model.names_of_none) {
        text(name);
        out_ += 'N';
      }
      out_ += 'u';
    }
    out_ += "u.";
    return std::move(out_);
  }

 private:
  void add(const TorchValues& values) {
    for (const auto& [name, entry] : values) {
      text(name);
      std::visit([this](const auto& given) { value(given); }, entry.value);
    }
  }

  void number(uint64_t bits, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(bits >> (8 * i) & 0xff);
  }
  void text(std::string_view given) {
    out_ += 'X';
    number(given.size(), 4);
    out_ += given;
  }
  void value(std::nullptr_t) { out_ += 'N'; }
  void value(bool given) { out_ += given ? '\x88' : '\x89'; }
  void value(int64_t given) {
    if (given == static_cast<int32_t>(given)) {
      out_ += 'J';
      number(static_cast<uint32_t>(given), 4);
    } else {
      out_ += "\x8a\x08";
      number(static_cast<uint64_t>(given), 8);
    }
  }
  void value(double given) {
    out_ += 'G';
    number(__builtin_bswap64(std::bit_cast<uint64_t>(given)), 8);
  }
  void value(const std::string& given) { text(given); }
  void value(const TorchDtype& given) {
    out_ += concat("ctorch\n", torch_dtype_name(given.dtype), "\n");
  }
  void value(const TorchValue::List& given) {
    out_ += "](";
    for (const TorchValue& item : given)
      std::visit([this](const auto& held) { value(held); }, item.value);
    out_ += 'e';
  }
  void tuple(const std::vector<int64_t>& given) {
    out_ += '(';
    for (const int64_t item : given) value(item);
    out_ += 't';
  }

  // torch's own call: storage, offset, sizes, strides, requires_grad, hooks.
  void tensor(const SafetensorsTensor& given) {
    std::vector<int64_t> strides(given.shape.size(), 1);
    for (size_t dim = given.shape.size(); dim-- > 1;)
      strides[dim - 1] = strides[dim] * std::max<int64_t>(given.shape[dim], 1);
    out_ += "ctorch._utils\n_rebuild_tensor_v2\n((";
    text("storage");
    out_ += concat("ctorch\n", torch_storage_name(given.dtype), "\n");
    text(std::to_string(num_tensors_++));
    text("cpu");
    value(static_cast<int64_t>(num_elements(given)));
    out_ += "tQ";
    value(int64_t{0});
    tuple(given.shape);
    tuple(strides);
    value(false);
    out_ += "ccollections\nOrderedDict\n)RtR";
  }

  std::string out_;
  int64_t num_tensors_ = 0;
};

}  // namespace

void write_torch_file(const std::filesystem::path& path, const TorchContents& contents,
                      const TorchSource& source) {
  FileWriter file(path);
  ZipWriter zip(file);
  const std::string prefix(kPrefix);
  zip.add(prefix + "data.pkl", PickleWriter().write(contents));
  zip.add(prefix + ".format_version", "1");
  zip.add(prefix + ".storage_alignment", "64");
  zip.add(prefix + "byteorder", "little");
  size_t number = 0;
  for (size_t model = 0; model < contents.models.size(); ++model) {
    const std::vector<SafetensorsTensor>& tensors = contents.models[model].tensors;
    for (size_t i = 0; i < tensors.size(); ++i) {
      zip.begin(concat(prefix, "data/", number++),
                tensor_bytes(tensors[i].dtype, tensors[i].shape).value());
      source(model, i, [&](std::span<const std::byte> bytes) { zip.write(bytes); });
    }
  }
  zip.add(prefix + "version", "3\n");
  zip.finish();
  file.commit();
}

}  // namespace moetron
