#include "moetron/convert/merge_adapter.h"

#include <algorithm>
#include <set>

#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/convert/fp8_source.h"
#include "moetron/formats/float_types.h"

namespace moetron {
namespace {

constexpr std::string_view kStackedGateUp = "mlp.experts.gate_up_proj";
constexpr std::string_view kStackedDown = "mlp.experts.down_proj";

bool is_stacked(std::string_view weight) {
  return weight.ends_with(kStackedGateUp) || weight.ends_with(kStackedDown);
}

// The name of a weight of the first expert in a stacked tensor; of others their own.
std::string name_of_weight(const std::string& tensor) {
  if (!is_stacked(tensor)) return tensor;
  const size_t dot = tensor.rfind('.');
  const bool is_down = tensor.ends_with(kStackedDown);
  return concat(tensor.substr(0, dot), ".0.", is_down ? tensors::kDown.name : tensors::kGate.name);
}

std::vector<float> read_floats(const SafetensorsFile& file, const SafetensorsEntry& entry,
                               uint64_t begin, uint64_t count) {
  const auto item = static_cast<uint64_t>(dtype_bits(entry.dtype) / 8);
  std::vector<float> values(count);
  widen(entry.dtype, file.bytes(entry).subspan(begin * item, count * item), values);
  return values;
}

}  // namespace

struct MergedWeights::Factors {
  std::vector<float> a;  // [rank, in]
  std::vector<float> b;  // [rows, rank]
};

MergedWeights::MergedWeights(const TensorSource& base, const AdapterConfig& config,
                             const std::filesystem::path& adapter)
    : base_(base), lora_(config.lora), file_(adapter / kAdapterFile) {
  MT_CHECK_INPUT(!has_scales(base),
                 "merge-adapter: the weights of load are in 8 bits; convert them "
                 "with --dtype bf16 first");
  std::set<std::string> used;
  for (const SafetensorsTensor& weight : base.tensors()) {
    updates_.push_back(find_update(weight));
    if (!updates_.back()) continue;
    check_shapes(weight, *updates_.back());
    used.insert({updates_.back()->a->name, updates_.back()->b->name});
  }
  for (const SafetensorsEntry& entry : file_.tensors())
    MT_CHECK_INPUT(used.contains(entry.name), file_.path().string(), ": ", entry.name,
                   " belongs to no weight of the model");
}

std::optional<MergedWeights::Update> MergedWeights::find_update(
    const SafetensorsTensor& weight) const {
  const std::string name = name_of_weight(weight.name);
  const std::string target = lora_target(name);
  if (target.empty() || !lora_.has(target)) return std::nullopt;
  Update update{.a = &file_.at(lora_name(lora_, name, LoraFactor::kA)),
                .b = &file_.at(lora_name(lora_, name, LoraFactor::kB))};
  MT_CHECK_INPUT(update.a->shape.size() == 2 && update.b->shape.size() == 2 &&
                     is_plain_float(update.a->dtype) && is_plain_float(update.b->dtype),
                 file_.path().string(), ": ", update.a->name, " and ", update.b->name,
                 " are no matrices of floats");
  const bool is_expert = expert_of(name) >= 0;
  const auto dims = weight.shape.size();
  MT_CHECK_INPUT(dims >= 2, weight.name, " is no matrix");
  update.rows_of_expert = weight.shape[dims - 2];
  if (!is_expert) return update;
  update.num_experts = std::max<int64_t>(1, update.a->shape[0] / lora_.rank);
  update.first_expert = is_stacked(weight.name) ? 0 : expert_of(name);
  // Of one expert's two stacked ones the second.
  if (name.ends_with(tensors::kUp.name)) update.first_row = update.rows_of_expert;
  return update;
}

void MergedWeights::check_shapes(const SafetensorsTensor& weight, const Update& update) const {
  const auto dims = weight.shape.size();
  const bool has_both = expert_of(name_of_weight(weight.name)) >= 0 && !is_stacked(weight.name) &&
                        lora_target(weight.name) == kExpertGateUp;
  const int64_t rows = update.rows_of_expert * (has_both ? 2 : 1);
  const int64_t last = dims == 3 ? weight.shape[0] : update.first_expert + 1;
  const std::vector<int64_t> a{lora_.rank * update.num_experts, weight.shape[dims - 1]};
  const std::vector<int64_t> b{rows, lora_.rank * update.num_experts};
  MT_CHECK_INPUT(update.a->shape == a && update.b->shape == b && last <= update.num_experts,
                 file_.path().string(), ": ", update.a->name, " ", shape_text(update.a->shape),
                 " and ", update.b->name, " ", shape_text(update.b->shape), " do not fit ",
                 weight.name, " ", shape_text(weight.shape));
}

MergedWeights::Factors MergedWeights::factors(const Update& update, int64_t expert,
                                              int64_t first_row, int64_t num_rows) const {
  const int64_t rank = lora_.rank, experts = update.num_experts, in = update.a->shape[1];
  Factors read;
  read.a = read_floats(file_, *update.a, static_cast<uint64_t>(expert * rank * in),
                       static_cast<uint64_t>(rank * in));
  const auto b = read_floats(file_, *update.b,
                             static_cast<uint64_t>((update.first_row + first_row) * rank * experts),
                             static_cast<uint64_t>(num_rows * rank * experts));
  for (int64_t i = 0; i < num_rows * rank; ++i)
    read.b.push_back(b[static_cast<size_t>(i * experts + expert)]);
  return read;
}

void MergedWeights::read(size_t index, uint64_t begin, uint64_t count,
                         std::span<std::byte> bytes) const {
  base_.read(index, begin, count, bytes);
  if (!updates_[index] || count == 0) return;
  const Update& update = *updates_[index];
  const SafetensorsDtype dtype = base_.tensors()[index].dtype;
  std::vector<float> values(count);
  widen(dtype, bytes, values);
  const auto in = static_cast<uint64_t>(update.a->shape[1]);
  const auto rank = static_cast<uint64_t>(lora_.rank);
  const auto rows = static_cast<uint64_t>(update.rows_of_expert);
  const auto scale = static_cast<float>(lora_.scale());
  const uint64_t first = begin / in, end = (begin + count - 1) / in + 1;  // rows of all experts
  for (uint64_t row = first; row < end;) {
    const uint64_t expert = row / rows, stop = std::min(end, (expert + 1) * rows);
    const Factors of = factors(update, update.first_expert + static_cast<int64_t>(expert),
                               static_cast<int64_t>(row % rows), static_cast<int64_t>(stop - row));
    std::vector<float> delta(in);
    for (uint64_t i = 0; row + i < stop; ++i) {
      std::fill(delta.begin(), delta.end(), 0.0F);
      for (uint64_t k = 0; k < rank; ++k) {
        const float b = of.b[i * rank + k];
        for (uint64_t column = 0; column < in; ++column) delta[column] += b * of.a[k * in + column];
      }
      const uint64_t row_begin = (row + i) * in;
      const uint64_t from = std::max(begin, row_begin),
                     to = std::min(begin + count, row_begin + in);
      for (uint64_t at = from; at < to; ++at) values[at - begin] += scale * delta[at - row_begin];
    }
    row = stop;
  }
  narrow(values, dtype, bytes);
}

}  // namespace moetron
