#include "moetron/models/adapters.h"

#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "moetron/arch/tensors.h"
#include "moetron/autograd/adapter.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

// A factor of which this rank holds these pieces; which ranks hold the same follows from whether
// it, or the dimension of the weight that it goes with, is divided: a whole factor's gradient is
// summed over all ranks that share the weight.
Parameter make_factor(const std::string& label, std::vector<int64_t> shape, const Parameter& weight,
                      std::vector<ParameterPiece> pieces, Init init, bool is_divided) {
  ReplicaRule replicas = weight.settings().replicas;
  if (!is_divided) replicas.tensor_copies = 0;
  return Parameter(label, std::move(shape), weight.value().options(), std::move(pieces),
                   {.init = init, .replicas = replicas});
}

// Row-major, from element `offset` of the storage.
ParameterPiece make_piece(const std::string& name, std::vector<int64_t> global_shape,
                          std::vector<int64_t> begin, std::vector<int64_t> sizes, int64_t offset) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  return {name, std::move(global_shape), std::move(begin),
          StorageBox{std::move(sizes), std::move(strides), offset}};
}

// Of a weight whose pieces are matrices one below the other, one update each.
void add_to_matrix(Parameter& weight, const LoraConfig& lora) {
  const int64_t row_size = weight.value().size(-1);
  for (const ParameterPiece& piece : weight.pieces()) {
    if (!lora.has(lora_target(piece.name))) continue;
    const int64_t out = piece.global_shape[0], in = piece.global_shape[1];
    const int64_t rows = piece.box.sizes[0], columns = piece.box.sizes[1];
    const std::string a = lora_name(lora, piece.name, LoraFactor::kA);
    const std::string b = lora_name(lora, piece.name, LoraFactor::kB);
    weight.add_adapter(std::unique_ptr<Adapter>(new Adapter{
        .a = make_factor(
            a, {lora.rank, columns}, weight,
            {make_piece(a, {lora.rank, in}, {0, piece.begin[1]}, {lora.rank, columns}, 0)},
            Init::kFanIn, columns < in),
        .b = make_factor(
            b, {rows, lora.rank}, weight,
            {make_piece(b, {out, lora.rank}, {piece.begin[0], 0}, {rows, lora.rank}, 0)},
            Init::kZeros, rows < out),
        .first_row = piece.box.offset / row_size,
        .scale = lora.scale()}));
  }
}

// Of the experts' stacked weights [local experts, out, in], one update for all rows of each. The
// tensors that are stacked (gate, up) are parts of what PEFT calls one.
void add_to_experts(Parameter& weight, const LoraConfig& lora, int64_t num_experts) {
  const std::string some_name = weight.pieces().front().name;
  const std::string target = lora_target(some_name);
  if (!lora.has(target)) return;
  const int64_t local = weight.value().size(0), out = weight.value().size(1),
                in = weight.value().size(2), rank = lora.rank;
  const int64_t num_parts = target == kExpertGateUp ? 2 : 1;
  const std::string a = lora_name(lora, some_name, LoraFactor::kA);
  const std::string b = lora_name(lora, some_name, LoraFactor::kB);
  std::vector<ParameterPiece> a_pieces, b_pieces;
  bool divides_rows = false, divides_columns = false;
  for (const ParameterPiece& piece : weight.pieces()) {
    const int64_t slot = piece.box.offset / (out * in);
    const int64_t expert = expert_of(piece.name);
    const int64_t row = piece.box.offset % (out * in) / in;
    const int64_t rows = piece.box.sizes[0];
    const bool is_second = piece.name.ends_with(tensors::kUp.name);
    const int64_t first = (is_second ? piece.global_shape[0] : 0) + piece.begin[0];
    b_pieces.push_back(make_piece(b, {num_parts * piece.global_shape[0], rank, num_experts},
                                  {first, 0, expert}, {rows, rank, 1}, (slot * out + row) * rank));
    divides_rows = divides_rows || rows < piece.global_shape[0];
    divides_columns = divides_columns || in < piece.global_shape[1];
    if (is_second) continue;
    a_pieces.push_back(make_piece(a, {num_experts * rank, piece.global_shape[1]},
                                  {expert * rank, piece.begin[1]}, {rank, in}, slot * rank * in));
  }
  weight.add_adapter(std::unique_ptr<Adapter>(
      new Adapter{.a = make_factor(a, {local, rank, in}, weight, std::move(a_pieces), Init::kFanIn,
                                   divides_columns),
                  .b = make_factor(b, {local, out, rank}, weight, std::move(b_pieces), Init::kZeros,
                                   divides_rows),
                  .scale = lora.scale()}));
}

}  // namespace

void add_adapters(TransformerLayerParts& parts, const ModelConfig& config,
                  const ModelSettings& settings) {
  const LoraConfig& lora = *settings.lora;
  const auto to_matrix = [&](Parameter& weight) {
    if (weight.value().dim() == 2) add_to_matrix(weight, lora);
  };
  parts.attention->visit(to_matrix);
  if (parts.mlp) parts.mlp->visit(to_matrix);
  if (!parts.moe) return;
  if (parts.moe->shared_expert) parts.moe->shared_expert->visit(to_matrix);
  parts.moe->experts.visit(
      [&](Parameter& weight) { add_to_experts(weight, lora, config.moe->num_experts); });
}

}  // namespace moetron
