#include "moetron/checkpoint/load_weights.h"

#include <charconv>
#include <limits>
#include <optional>
#include <set>
#include <string_view>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/slice_reader.h"
#include "moetron/checkpoint/tensor_file.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

// The number that all of `text` is.
std::optional<int64_t> whole_number(std::string_view text) {
  int64_t number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || stop != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

// "PREFIX.mlp.experts.3.gate_proj.weight" taken apart.
struct ExpertName {
  std::string stacked;  // "PREFIX.mlp.experts.gate_up_proj"
  int64_t expert = 0;
  int64_t part = 0;       // 0: gate, 1: up; of down_proj always 0
  int64_t num_parts = 1;  // that the stacked tensor holds per expert
};

std::optional<ExpertName> parse_expert_name(std::string_view name) {
  constexpr std::string_view kExperts = ".mlp.experts.";
  const size_t found = name.find(kExperts);
  if (found == std::string_view::npos) return std::nullopt;
  const size_t number_begin = found + kExperts.size();
  const size_t dot = name.find('.', number_begin);
  if (dot == std::string_view::npos) return std::nullopt;
  const auto expert = whole_number(name.substr(number_begin, dot - number_begin));
  if (!expert) return std::nullopt;
  const std::string prefix(name.substr(0, number_begin));
  const std::string_view rest = name.substr(dot + 1);
  if (rest == "gate_proj.weight") return ExpertName{prefix + "gate_up_proj", *expert, 0, 2};
  if (rest == "up_proj.weight") return ExpertName{prefix + "gate_up_proj", *expert, 1, 2};
  if (rest == "down_proj.weight") return ExpertName{prefix + "down_proj", *expert, 0, 1};
  return std::nullopt;
}

// What of config.json tells which stored tensors may be ignored.
class IgnorableTensors {
 public:
  explicit IgnorableTensors(const std::filesystem::path& folder) {
    if (!std::filesystem::exists(folder / "config.json")) return;
    const Json config = read_json(folder / "config.json");
    if (!config.is_object()) return;
    const Json layers = config.value("num_hidden_layers", Json());
    if (layers.is_number_integer()) num_layers_ = layers.get<int64_t>();
    untied_ = config.value("tie_word_embeddings", Json()) == Json(false);
  }

  bool contains(std::string_view name) const {
    constexpr std::string_view kLayers = "model.layers.";
    if (name.ends_with("rotary_emb.inv_freq")) return true;
    if (name == "lm_head.weight") return !untied_;
    if (!name.starts_with(kLayers)) return false;
    const std::string_view rest = name.substr(kLayers.size());
    const auto layer = whole_number(rest.substr(0, rest.find('.')));
    return layer && *layer >= num_layers_;  // multi-token prediction
  }

 private:
  int64_t num_layers_ = std::numeric_limits<int64_t>::max();
  bool untied_ = false;
};

class WeightReader {
 public:
  explicit WeightReader(const std::filesystem::path& folder) : files_(folder) {}

  void read(const NamedSlice& slice) {
    if (files_.contains(slice.name)) {
      const SafetensorsEntry& entry = files_.at(slice.name);
      check_shape(slice, entry.name, entry.shape == slice.global_shape, slice.global_shape);
      fill(slice, entry.name, files_.bytes(entry.name));
      return;
    }
    const auto expert = parse_expert_name(slice.name);
    MT_CHECK_INPUT(expert && files_.contains(expert->stacked), files_.folder().string(),
                   " holds no tensor ", slice.name, ", which the model needs");
    read_stacked(slice, *expert);
  }

  int64_t num_read() const { return static_cast<int64_t>(names_read_.size()); }

  std::vector<std::string> unused(const IgnorableTensors& ignorable) const {
    std::vector<std::string> unused;
    for (const std::string& name : files_.names()) {
      if (!entries_read_.contains(name) && !ignorable.contains(name)) unused.push_back(name);
    }
    return unused;
  }

 private:
  // One expert of a stacked tensor [experts, parts * rows, columns].
  void read_stacked(const NamedSlice& slice, const ExpertName& expert) {
    const SafetensorsEntry& entry = files_.at(expert.stacked);
    MT_CHECK(slice.global_shape.size() == 2, slice.name, " is no matrix");
    const int64_t rows = slice.global_shape[0], columns = slice.global_shape[1];
    const bool fits = entry.shape.size() == 3 && entry.shape[0] > expert.expert &&
                      entry.shape[1] == expert.num_parts * rows && entry.shape[2] == columns;
    const int64_t least_experts = expert.expert + 1;
    check_shape(slice, entry.name, fits, {least_experts, expert.num_parts * rows, columns});
    const std::span<const std::byte> all = files_.bytes(entry.name);
    const uint64_t part_bytes =
        all.size() / static_cast<uint64_t>(entry.shape[0] * expert.num_parts);
    const auto part = static_cast<uint64_t>(expert.expert * expert.num_parts + expert.part);
    fill(slice, entry.name, all.subspan(part * part_bytes, part_bytes));
  }

  void check_shape(const NamedSlice& slice, const std::string& stored, bool fits,
                   const std::vector<int64_t>& wanted) const {
    MT_CHECK_INPUT(fits, files_.file_of(stored).string(), ": tensor ", stored, " has the shape ",
                   shape_text(files_.at(stored).shape), ", the model needs ", shape_text(wanted),
                   stored == slice.name ? "" : " at least, for " + slice.name);
  }

  void fill(const NamedSlice& slice, const std::string& stored, std::span<const std::byte> bytes) {
    const SafetensorsDtype dtype = files_.at(stored).dtype;
    const SafetensorsDtype wanted = stored_dtype(slice.view.scalar_type());
    MT_CHECK_INPUT(is_convertible(dtype, wanted), files_.file_of(stored).string(), ": tensor ",
                   stored, " is ", dtype_name(dtype), ", which cannot be read as ",
                   dtype_name(wanted));
    fill_slice(slice, {dtype, bytes});
    entries_read_.insert(stored);
    names_read_.insert(slice.name);
  }

  ModelFiles files_;
  std::set<std::string> entries_read_;  // on disk
  std::set<std::string> names_read_;    // as the model knows them
};

}  // namespace

LoadReport load_some_weights(const std::filesystem::path& folder,
                             const std::vector<NamedSlice>& slices) {
  MT_CHECK_INPUT(std::filesystem::is_directory(folder), folder.string(), " is no folder");
  WeightReader reader(folder);
  for (const NamedSlice& slice : slices) reader.read(slice);
  return {reader.num_read(), reader.unused(IgnorableTensors(folder))};
}

LoadReport load_weights(const std::filesystem::path& folder,
                        const std::vector<NamedSlice>& slices) {
  LoadReport report = load_some_weights(folder, slices);
  if (!report.unused.empty()) {
    log_warning(concat(folder.string(), " holds ", report.unused.size(),
                       " tensors that the model does not use, the first is ",
                       report.unused.front()));
  }
  return report;
}

}  // namespace moetron
