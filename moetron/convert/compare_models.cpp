#include "moetron/convert/compare_models.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/parallel_for.h"
#include "moetron/convert/fp8_source.h"
#include "moetron/convert/model_source.h"
#include "moetron/convert/tensor_chunks.h"
#include "moetron/formats/float_types.h"

namespace moetron {
namespace {

// A model with its weights in 8 bits multiplied out.
class ReadableModel {
 public:
  explicit ReadableModel(const std::filesystem::path& path) : stored_(path) {
    if (has_scales(stored_)) multiplied_.emplace(stored_, path.string());
  }
  const TensorSource& source() const {
    if (multiplied_) return *multiplied_;
    return stored_;
  }

 private:
  ModelSource stored_;
  std::optional<Fp8Source> multiplied_;
};

template <class Stored>
void to_doubles(std::span<const std::byte> bytes, std::span<double> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    out[i] = static_cast<double>(stored);
  }
}

void floats_to_doubles(SafetensorsDtype dtype, std::span<const std::byte> bytes,
                       std::span<double> out) {
  std::vector<float> floats(out.size());
  widen(dtype, bytes, floats);
  std::copy(floats.begin(), floats.end(), out.begin());
}

// False for types that are no numbers here.
bool read_numbers(SafetensorsDtype dtype, std::span<const std::byte> bytes, std::span<double> out) {
  using enum SafetensorsDtype;
  switch (dtype) {
    case kF32:
    case kBF16:
    case kF16:
    case kF8E4M3:
      floats_to_doubles(dtype, bytes, out);
      return true;
    case kF64:
      to_doubles<double>(bytes, out);
      return true;
    case kBool:
    case kU8:
      to_doubles<uint8_t>(bytes, out);
      return true;
    case kI8:
      to_doubles<int8_t>(bytes, out);
      return true;
    case kI16:
      to_doubles<int16_t>(bytes, out);
      return true;
    case kU16:
      to_doubles<uint16_t>(bytes, out);
      return true;
    case kI32:
      to_doubles<int32_t>(bytes, out);
      return true;
    case kU32:
      to_doubles<uint32_t>(bytes, out);
      return true;
    case kI64:
      to_doubles<int64_t>(bytes, out);
      return true;
    case kU64:
      to_doubles<uint64_t>(bytes, out);
      return true;
    default:
      return false;
  }
}

// What is known of a tensor's two versions behind some of its elements.
class DifferenceMeter {
 public:
  explicit DifferenceMeter(const CompareSettings& settings) : settings_(settings) {}

  void add(double a, double b) {
    if (std::isfinite(a) && std::isfinite(b)) {
      dot_ += a * b;
      first_ += a * a;
      second_ += b * b;
    }
    if (a == b || (std::isnan(a) && std::isnan(b))) return;
    const double greater = std::max(std::abs(a), std::abs(b));
    double difference = std::abs(a - b);
    // Of infinities of two signs, and of what is a number in one model alone.
    if (!std::isfinite(difference)) difference = std::numeric_limits<double>::infinity();
    const double relative = std::isfinite(difference) ? difference / greater : difference;
    result_.max_abs = std::max(result_.max_abs, difference);
    result_.max_rel = std::max(result_.max_rel, relative);
    result_.num_unlike += difference > std::max(settings_.atol, settings_.rtol * greater) ||
                          !std::isfinite(difference);
  }

  void add_other_bits() {
    result_.num_unlike += 1;
    result_.max_abs = result_.max_rel = std::numeric_limits<double>::infinity();
  }

  TensorDifference result(const SafetensorsTensor& tensor) const {
    TensorDifference result = result_;
    result.name = tensor.name;
    result.num_elements = num_elements(tensor);
    const double norms = std::sqrt(first_) * std::sqrt(second_);
    if (norms > 0) {
      result.cosine = std::clamp(dot_ / norms, -1.0, 1.0);
    } else if (first_ != second_) {
      result.cosine = 0;
    }
    return result;
  }

 private:
  const CompareSettings& settings_;
  TensorDifference result_;
  double dot_ = 0, first_ = 0, second_ = 0;
};

// One model's part of a tensor: the bytes, and the numbers that they are.
class ChunkReader {
 public:
  ChunkReader(const TensorSource& source, size_t index)
      : source_(source), index_(index), dtype_(source.tensors()[index].dtype) {}

  // Whether the elements are numbers.
  bool read(uint64_t begin, uint64_t count) {
    bytes_.resize(count * static_cast<uint64_t>(dtype_bits(dtype_) / 8));
    numbers_.resize(count);
    source_.read(index_, begin, count, bytes_);
    return read_numbers(dtype_, bytes_, numbers_);
  }
  std::span<const double> numbers() const { return numbers_; }
  // Of one element.
  std::span<const std::byte> bits(size_t element) const {
    const auto size = static_cast<size_t>(dtype_bits(dtype_) / 8);
    return std::span(bytes_).subspan(element * size, size);
  }
  SafetensorsDtype dtype() const { return dtype_; }

 private:
  const TensorSource& source_;
  size_t index_;
  SafetensorsDtype dtype_;
  std::vector<std::byte> bytes_;
  std::vector<double> numbers_;
};

TensorDifference compare_tensors(ChunkReader first, ChunkReader second,
                                 const SafetensorsTensor& tensor, const CompareSettings& settings) {
  constexpr uint64_t kCount = uint64_t{1} << 18;  // elements at a time
  DifferenceMeter meter(settings);
  const uint64_t total = num_elements(tensor);
  for (uint64_t begin = 0; begin < total; begin += kCount) {
    const uint64_t count = std::min(kCount, total - begin);
    const bool first_has_numbers = first.read(begin, count);
    const bool second_has_numbers = second.read(begin, count);
    const bool have_numbers = first_has_numbers && second_has_numbers;
    for (size_t i = 0; i < count; ++i) {
      if (have_numbers) {
        meter.add(first.numbers()[i], second.numbers()[i]);
      } else if (first.dtype() != second.dtype() ||
                 !std::ranges::equal(first.bits(i), second.bits(i))) {
        meter.add_other_bits();
      }
    }
  }
  return meter.result(tensor);
}

bool is_worse(const TensorDifference& a, const TensorDifference& b) {
  if (a.max_rel != b.max_rel) return a.max_rel > b.max_rel;
  return a.max_abs != b.max_abs ? a.max_abs > b.max_abs : a.name < b.name;
}

std::string list(const char* title, const std::vector<std::string>& entries, size_t top) {
  if (entries.empty()) return "";
  std::string text = concat(title, " (", entries.size(), "):\n");
  for (size_t i = 0; i < entries.size() && i < top; ++i) text += "  " + entries[i] + "\n";
  if (entries.size() > top) text += concat("  and ", entries.size() - top, " more\n");
  return text;
}

}  // namespace

uint64_t ModelComparison::num_unlike() const {
  return static_cast<uint64_t>(
      std::count_if(compared.begin(), compared.end(),
                    [](const TensorDifference& tensor) { return tensor.num_unlike > 0; }));
}

bool ModelComparison::differs() const {
  return !missing.empty() || !extra.empty() || !other_shapes.empty() || num_unlike() > 0;
}

ModelComparison compare_models(const std::filesystem::path& first_path,
                               const std::filesystem::path& second_path,
                               const CompareSettings& settings) {
  const ReadableModel first_model(first_path), second_model(second_path);
  const TensorSource &first = first_model.source(), &second = second_model.source();
  ModelComparison comparison;
  std::vector<std::pair<size_t, size_t>> common;
  for (size_t i = 0; i < first.tensors().size(); ++i) {
    const SafetensorsTensor& tensor = first.tensors()[i];
    const size_t at = find_tensor(second, tensor.name);
    if (at == second.tensors().size()) {
      comparison.missing.push_back(tensor.name);
      continue;
    }
    const SafetensorsTensor& other = second.tensors()[at];
    if (tensor.dtype != other.dtype)
      comparison.other_dtypes.push_back(
          concat(tensor.name, " ", dtype_name(tensor.dtype), " ", dtype_name(other.dtype)));
    if (tensor.shape == other.shape) {
      common.emplace_back(i, at);
    } else {
      comparison.other_shapes.push_back(
          concat(tensor.name, " ", shape_text(tensor.shape), " ", shape_text(other.shape)));
    }
  }
  for (const SafetensorsTensor& tensor : second.tensors()) {
    if (find_tensor(first, tensor.name) == first.tensors().size())
      comparison.extra.push_back(tensor.name);
  }
  comparison.compared.resize(common.size());
  std::mutex mutex;
  uint64_t done = 0;
  parallel_for(settings.num_threads, common.size(), [&](uint64_t i) {
    const auto [in_first, in_second] = common[i];
    comparison.compared[i] =
        compare_tensors(ChunkReader(first, in_first), ChunkReader(second, in_second),
                        first.tensors()[in_first], settings);
    const std::lock_guard lock(mutex);
    if (settings.progress) settings.progress(++done, common.size());
  });
  std::sort(comparison.compared.begin(), comparison.compared.end(), is_worse);
  return comparison;
}

std::string describe(const ModelComparison& comparison, int64_t top) {
  const auto rows = static_cast<size_t>(top);
  std::string text;
  for (size_t i = 0; i < comparison.compared.size() && i < rows; ++i) {
    const TensorDifference& tensor = comparison.compared[i];
    if (tensor.max_abs == 0) break;
    if (i == 0) text += "   max abs    max rel       cosine    unlike  tensor\n";
    text += concat(formatted("%10.3e %10.3e %12.9f %9llu  ", tensor.max_abs, tensor.max_rel,
                             tensor.cosine, static_cast<unsigned long long>(tensor.num_unlike)),
                   tensor.name, "\n");
  }
  text += list("missing in the second", comparison.missing, rows);
  text += list("in the second alone", comparison.extra, rows);
  text += list("of other shapes", comparison.other_shapes, rows);
  text += list("of other types", comparison.other_dtypes, rows);
  double max_abs = 0, max_rel = 0, cosine = 1;
  for (const TensorDifference& tensor : comparison.compared) {
    max_abs = std::max(max_abs, tensor.max_abs);
    max_rel = std::max(max_rel, tensor.max_rel);
    cosine = std::min(cosine, tensor.cosine);
  }
  return concat(
      text, comparison.differs() ? "different" : "alike", ": ", comparison.compared.size(),
      " tensors compared, ", comparison.num_unlike(), " unlike, ", comparison.missing.size(),
      " missing, ", comparison.extra.size(), " extra, ", comparison.other_shapes.size(),
      " of other shapes; ",
      formatted("max abs %.3e, max rel %.3e, least cosine %.9f\n", max_abs, max_rel, cosine));
}

}  // namespace moetron
