#include "moetron/checkpoint/load_weights.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "moetron/arch/layer_range.h"
#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/base/log.h"
#include "moetron/base/parse_number.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/slice_reader.h"
#include "moetron/checkpoint/stored_weights.h"
#include "moetron/checkpoint/tensor_file.h"
#include "moetron/comm/communicator.h"

namespace moetron {
namespace {

constexpr const char* kHead = tensors::kHead.name;
constexpr const char* kEmbedding = tensors::kEmbedding.name;

// Of a layer or an expert.
std::optional<int64_t> parse_index(std::string_view text) {
  const auto number = parse_number<int64_t>(text);
  return number && *number >= 0 ? number : std::nullopt;
}

// "PREFIX.mlp.experts.3.gate_proj.weight" taken apart.
struct ExpertName {
  std::string stacked;  // "PREFIX.mlp.experts.gate_up_proj"
  int64_t expert = 0;
  int64_t part = 0;       // 0: gate, 1: up; of down_proj always 0
  int64_t num_parts = 1;  // that the stacked tensor holds per expert
};

std::optional<ExpertName> parse_expert_name(std::string_view name) {
  constexpr std::string_view kExperts = tensors::kExperts;
  const size_t found = name.find(kExperts);
  if (found == std::string_view::npos || found == 0 || name[found - 1] != '.') return std::nullopt;
  const size_t number_begin = found + kExperts.size();
  const size_t dot = name.find('.', number_begin);
  if (dot == std::string_view::npos) return std::nullopt;
  const auto expert = parse_index(name.substr(number_begin, dot - number_begin));
  if (!expert) return std::nullopt;
  const std::string prefix(name.substr(0, number_begin));
  const std::string_view rest = name.substr(dot + 1);
  if (rest == tensors::kGate.name) return ExpertName{prefix + "gate_up_proj", *expert, 0, 2};
  if (rest == tensors::kUp.name) return ExpertName{prefix + "gate_up_proj", *expert, 1, 2};
  if (rest == tensors::kDown.name) return ExpertName{prefix + "down_proj", *expert, 0, 1};
  return std::nullopt;
}

// What of config.json tells which stored tensors may be ignored.
class IgnorableTensors {
 public:
  IgnorableTensors(const std::filesystem::path& folder, const StoredModel& stored) {
    if (!path_exists(folder / "config.json")) {
      if (!stored.config) return;
      num_layers_ = stored.config->num_layers;
      tied_ = stored.config->tie_word_embeddings;
      untied_ = !tied_;
      return;
    }
    const Json config = read_json(folder / "config.json");
    if (!config.is_object()) return;
    const Json layers = config.value("num_hidden_layers", Json());
    if (layers.is_number_integer()) num_layers_ = layers.get<int64_t>();
    untied_ = config.value("tie_word_embeddings", Json()) == Json(false);
    tied_ = config.value("tie_word_embeddings", Json()) == Json(true);
  }

  bool head_is_tied() const { return tied_; }

  bool contains(std::string_view name) const {
    if (name.ends_with("rotary_emb.inv_freq")) return true;
    if (name == kHead) return !untied_;
    const auto found = layer_name(name);
    return found && found->layer >= num_layers_;  // multi-token prediction
  }

 private:
  int64_t num_layers_ = std::numeric_limits<int64_t>::max();
  bool untied_ = false;
  bool tied_ = false;
};

class WeightReader {
 public:
  WeightReader(const std::filesystem::path& folder, const StoredModel& stored)
      : folder_(folder.string()), stored_(open_weights(folder, stored)) {}

  void read(const NamedSlice& slice) {
    if (const SafetensorsTensor* tensor = stored_->find(slice.name)) {
      const std::vector<int64_t> wanted = shape_in_file(slice.name, slice.global_shape);
      check_shape(slice, *tensor, tensor->shape == wanted, wanted);
      const StoredBytes all = stored_->read(slice.name);
      return fill(slice, *tensor, all.bytes);
    }
    const auto expert = parse_expert_name(slice.name);
    const SafetensorsTensor* stacked = expert ? stored_->find(expert->stacked) : nullptr;
    MT_CHECK_INPUT(stacked != nullptr, folder_, " holds no tensor ", slice.name,
                   ", which the model needs");
    read_stacked(slice, *stacked, *expert);
  }

  // A head of its own is kept by transformers, whatever config.json says: to leave it out would be
  // another model.
  void check_tied_head() const {
    const SafetensorsTensor* head = stored_->find(kHead);
    const SafetensorsTensor* embedding = stored_->find(kEmbedding);
    if (head == nullptr || embedding == nullptr) return;
    const StoredBytes of_head = stored_->read(kHead), of_embedding = stored_->read(kEmbedding);
    MT_CHECK_INPUT(
        head->dtype == embedding->dtype && std::ranges::equal(of_head.bytes, of_embedding.bytes),
        folder_, ": config.json says tie_word_embeddings, but the weights hold a ", kHead,
        " that differs from ", kEmbedding,
        "; set tie_word_embeddings to false to keep that head, or remove it");
  }

  int64_t num_read() const { return static_cast<int64_t>(names_read_.size()); }

  // A byte for each stored tensor, in the order of their names: 1 where it was read.
  std::vector<uint8_t> marks() const {
    std::vector<uint8_t> marks;
    for (const std::string& name : stored_->names()) marks.push_back(entries_read_.contains(name));
    return marks;
  }

  // Of what the marks say nobody read.
  std::vector<std::string> unused(const std::vector<uint8_t>& marks,
                                  const IgnorableTensors& ignorable) const {
    std::vector<std::string> unused;
    const std::vector<std::string> names = stored_->names();
    for (size_t i = 0; i < names.size(); ++i) {
      if (marks[i] == 0 && !ignorable.contains(names[i])) unused.push_back(names[i]);
    }
    return unused;
  }

 private:
  // One expert of a stacked tensor [experts, parts * rows, columns].
  void read_stacked(const NamedSlice& slice, const SafetensorsTensor& stacked,
                    const ExpertName& expert) {
    MT_CHECK(slice.global_shape.size() == 2, slice.name, " is no matrix");
    const int64_t rows = slice.global_shape[0], columns = slice.global_shape[1];
    const bool fits = stacked.shape.size() == 3 && stacked.shape[0] > expert.expert &&
                      stacked.shape[1] == expert.num_parts * rows && stacked.shape[2] == columns;
    const int64_t least_experts = expert.expert + 1;
    check_shape(slice, stacked, fits, {least_experts, expert.num_parts * rows, columns});
    const StoredBytes all = stored_->read(stacked.name);
    const uint64_t part_bytes =
        all.bytes.size() / static_cast<uint64_t>(stacked.shape[0] * expert.num_parts);
    const auto part = static_cast<uint64_t>(expert.expert * expert.num_parts + expert.part);
    fill(slice, stacked, all.bytes.subspan(part * part_bytes, part_bytes));
  }

  void check_shape(const NamedSlice& slice, const SafetensorsTensor& stored, bool fits,
                   const std::vector<int64_t>& wanted) const {
    MT_CHECK_INPUT(fits, stored_->place_of(stored.name), ": tensor ", stored.name,
                   " has the shape ", shape_text(stored.shape), ", the model needs ",
                   shape_text(wanted),
                   stored.name == slice.name ? "" : " at least, for " + slice.name);
  }

  void fill(const NamedSlice& slice, const SafetensorsTensor& stored,
            std::span<const std::byte> bytes) {
    const SafetensorsDtype wanted = stored_dtype(slice.view.scalar_type());
    const std::optional<BlockScales> scales = scales_of(stored);
    MT_CHECK_INPUT(is_convertible(scales ? SafetensorsDtype::kF32 : stored.dtype, wanted),
                   stored_->place_of(stored.name), ": tensor ", stored.name, " is ",
                   dtype_name(stored.dtype), ", which cannot be read as ", dtype_name(wanted));
    fill_slice(slice, {stored.dtype, bytes, scales ? &*scales : nullptr});
    entries_read_.insert(stored.name);
    names_read_.insert(slice.name);
  }

  // Of a matrix in 8 bits; none of other tensors.
  std::optional<BlockScales> scales_of(const SafetensorsTensor& stored) {
    const std::string name = concat(stored.name, kScaleSuffix);
    const SafetensorsTensor* scale = stored_->find(name);
    if (scale == nullptr) return std::nullopt;
    entries_read_.insert(name);
    const StoredBytes scales = stored_->read(name);
    return BlockScales(stored, *scale, scales.bytes, stored_->place_of(name));
  }

  std::string folder_;
  std::unique_ptr<StoredWeights> stored_;
  std::set<std::string> entries_read_;  // on disk
  std::set<std::string> names_read_;    // as the model knows them
};

WeightReader read_all(const std::filesystem::path& folder, const std::vector<NamedSlice>& slices,
                      const StoredModel& stored) {
  WeightReader reader(folder, stored);
  for (const NamedSlice& slice : slices) reader.read(slice);
  return reader;
}

// Marks what any rank has marked.
void unite(std::vector<uint8_t>& marks, Communicator* world) {
  if (world == nullptr || world->size() == 1 || marks.empty()) return;
  const auto count = static_cast<int64_t>(marks.size());
  world->all_reduce(at::from_blob(marks.data(), {count}, at::kByte), ReduceOp::kMax).wait();
}

}  // namespace

LoadReport load_some_weights(const std::filesystem::path& folder,
                             const std::vector<NamedSlice>& slices) {
  const WeightReader reader = read_all(folder, slices, {});
  return {reader.num_read(), reader.unused(reader.marks(), IgnorableTensors(folder, {}))};
}

LoadReport load_weights(const std::filesystem::path& folder, const std::vector<NamedSlice>& slices,
                        Communicator* world, const StoredModel& stored) {
  std::optional<WeightReader> reader;
  std::optional<IgnorableTensors> ignorable;
  std::vector<uint8_t> marks;
  const std::vector<int64_t> num_stored = on_all_ranks(world, [&] {
    reader.emplace(read_all(folder, slices, stored));
    ignorable.emplace(folder, stored);
    if (ignorable->head_is_tied() && (world == nullptr || world->rank() == 0))
      reader->check_tied_head();
    marks = reader->marks();
    return static_cast<int64_t>(marks.size());
  });
  for (size_t rank = 1; rank < num_stored.size(); ++rank) {
    MT_CHECK_INPUT(num_stored[rank] == num_stored[0], folder.string(), " holds ", num_stored[rank],
                   " tensors for rank ", rank, ", but ", num_stored[0],
                   " for rank 0: it must be the same folder for all");
  }
  unite(marks, world);
  LoadReport report{reader->num_read(), reader->unused(marks, *ignorable)};
  if (!report.unused.empty() && (world == nullptr || world->rank() == 0)) {
    log_warning(concat(folder.string(), " holds ", report.unused.size(),
                       " tensors that the model does not use, the first is ",
                       report.unused.front()));
  }
  return report;
}

}  // namespace moetron
