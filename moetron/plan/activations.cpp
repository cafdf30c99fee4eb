#include "moetron/plan/activations.h"

#include <algorithm>

#include "moetron/arch/logits.h"
#include "moetron/arch/tensors.h"
#include "moetron/base/units.h"
#include "moetron/plan/dispatch_time.h"

namespace moetron {
namespace {

// Bytes of a part of a layer, for one token of the micro-batch.
struct PartBytes {
  double kept = 0;         // for the input gradients
  double for_weights = 0;  // from those to the weight gradients
};

PartBytes operator+(const PartBytes& a, const PartBytes& b) {
  return {a.kept + b.kept, a.for_weights + b.for_weights};
}

// One layer on one rank. All members are bytes for one token of the micro-batch.
class LayerBytes {
 public:
  LayerBytes(const RunSpec& spec, bool has_experts, bool in_fp8)
      : spec_(spec),
        model_(spec.model),
        has_experts_(has_experts),
        in_fp8_(in_fp8),
        // Factors of weight gradients; without them in 8 bits they stay as they are.
        factors_in_fp8_(in_fp8 && spec.fp8->weight_grad),
        value_(value_bytes(spec)),
        ranks_(as_double(spec.sizes.tp)),
        hidden_(value_ * as_double(spec.model.hidden_size)) {}

  // The residual stream: a layer's input, what attention adds up, ...
  double slice() const { return hidden_ / ranks_; }

  // Norms, attention, router.
  PartBytes attention() const {
    PartBytes bytes = model_.mla ? latent_attention(*model_.mla) : grouped_attention();
    bytes.kept += slice();  // the sum in front of the second norm
    if (!has_experts_) return bytes;
    const double normed_and_routing = slice() + routing();
    return bytes + PartBytes{normed_and_routing, normed_and_routing};
  }

  // What is behind attention: experts and shared expert, or an MLP.
  PartBytes rest() const {
    if (!has_experts_) return mlp(as_double(model_.intermediate_size), factor(hidden_values()));
    const MoeConfig& moe = *model_.moe;
    PartBytes bytes = experts();
    if (moe.shared_intermediate_size == 0) return bytes;
    // On one rank, in bf16, its input is what the router keeps.
    const double input = ranks_ == 1 && !in_fp8_ ? 0 : factor(hidden_values());
    if (moe.shared_expert_gate) bytes.kept += slice();  // what it multiplies
    return bytes + mlp(as_double(moe.shared_intermediate_size), input);
  }

  // Between the operations of the backward.
  double working() const {
    if (!has_experts_) {
      const double width = value_ * as_double(model_.intermediate_size) / ranks_;
      return slice() + 2 * hidden_ + 3 * width;
    }
    return slice() + rows() * working_of_row();
  }

  // Rows of experts, for a token of the micro-batch.
  double rows() const {
    const MoeConfig& moe = *model_.moe;
    double rows = as_double(moe.top_k * spec_.sizes.tpe) / ranks_;
    if (spec_.experts.pad_to_capacity) rows *= spec_.experts.capacity_factor.value_or(1);
    if (!in_fp8_) return rows;
    // Each expert's are filled up to whole blocks of 128, half of one on average.
    return rows + 64 * as_double(moe.num_experts / spec_.sizes.ep) / spec_.tokens();
  }

  // In the forward: the activation and the output.
  double forward_working_of_row() const { return hidden_ + width_of_expert() * value_; }

 private:
  double hidden_values() const { return as_double(model_.hidden_size); }
  // What a linear operation keeps of its input, and what it keeps of its output's gradient.
  double factor(double values) const {
    return values * (factors_in_fp8_ ? kEightBitBytes : value_);
  }

  double routing() const {
    const MoeConfig& moe = *model_.moe;
    // Scores; of each choice the expert, the weight and its gradient, and places in both orders.
    return (4 * as_double(moe.num_experts) + 32 * as_double(moe.top_k)) / ranks_;
  }

  // The output projection: its input is kept by attention already, unless it wants it in 8 bits.
  PartBytes projection(double mixed) const {
    return {factors_in_fp8_ ? factor(mixed) : 0, factor(mixed) + factor(hidden_values())};
  }

  PartBytes grouped_attention() const {
    const double query =
        as_double(model_.num_attention_heads) / ranks_ * as_double(model_.head_dim);
    const double key =
        std::max(1.0, as_double(model_.num_key_value_heads) / ranks_) * as_double(model_.head_dim);
    const double input = factor(hidden_values());
    // The product, of which the values are read as they are; normed and turned queries and keys;
    // mixed.
    const double heads = value_ * (query + 2 * key + query + key + query);
    return PartBytes{input + heads + log_sums(), input + factor(query + 2 * key)} +
           projection(query);
  }

  PartBytes latent_attention(const MlaConfig& mla) const {
    const double heads = as_double(model_.num_attention_heads) / ranks_;
    const double query = heads * as_double(mla.qk_head_dim());
    const double mixed = heads * as_double(mla.v_head_dim);
    const double up = heads * as_double(mla.qk_nope_head_dim + mla.v_head_dim);
    const double latents = as_double(mla.q_lora_rank + mla.kv_lora_rank);
    const double down = latents + as_double(mla.qk_rope_head_dim);
    const bool own_tokens =
        spec_.latent_attention.replicate_down;  // else gathered before the product
    const double part = own_tokens ? 1 / ranks_ : 1.0;
    PartBytes bytes;
    if (!spec_.latent_attention.recompute_norms) {
      // The products' inputs; without query latents the queries come from the layer's own.
      const double normed = factor(latents) + (mla.q_lora_rank == 0 && part < 1 ? hidden_ : 0);
      bytes = {part * factor(hidden_values()) + normed, part * factor(hidden_values()) + normed};
    }
    bytes.kept += value_ * (part * down + 2 * query + 2 * mixed) + log_sums();
    bytes.for_weights += factor(down * part + query + up);
    return bytes + projection(mixed);
  }

  double log_sums() const { return 4 * as_double(model_.num_attention_heads) / ranks_; }

  PartBytes mlp(double width, double input) const {
    const double local = width / ranks_;
    const double activation = factor(local);
    return {input + 2 * value_ * local + activation,
            input + activation + factor(2 * local) + factor(hidden_values())};
  }

  double width_of_expert() const {
    return as_double(model_.moe->expert_intermediate_size) / as_double(spec_.sizes.tpe);
  }

  PartBytes experts() const {
    constexpr double kWeightAndPlaces = 12;
    const double width = width_of_expert();
    const double product =
        spec_.recompute.kind == Recompute::kExpertProduct ? 0 : 2 * width * value_;
    return {rows() * (factor(hidden_values()) + product + kWeightAndPlaces),
            rows() * (2 * factor(hidden_values()) + 3 * factor(width))};
  }

  // At the most, of an expert's row: with the gradients of the output, of the activation and of the
  // first product, the activation made again, and at the end the gradient of the input, when the
  // first product's output is gone.
  double working_of_row() const {
    const double width = width_of_expert();
    const double product = 2 * width * value_;
    const bool comes_in_fp8 = factors_in_fp8_ && spec_.fp8->dispatch;
    const double d_output =
        (comes_in_fp8 ? 0 : hidden_) + (factors_in_fp8_ ? factor(hidden_values()) : 0);
    const double made = factor(3 * width);  // the activation and the product's gradient
    const bool again = spec_.recompute.kind == Recompute::kExpertProduct;
    const double before = d_output + width * value_ + made + (again ? product : 0);
    const double gone = again ? 0 : product;
    const double last = d_output + width * value_ + made + hidden_ - gone;
    double most = std::max(before, last);
    if (factors_in_fp8_) {
      // Both factors of a weight gradient are turned.
      const double turned =
          std::max(factor(hidden_values() + width), factor(hidden_values() + 2 * width));
      most = std::max(most, d_output + made + hidden_ - gone + turned);
    }
    return most;
  }

  const RunSpec& spec_;
  const ModelConfig& model_;
  bool has_experts_;
  bool in_fp8_, factors_in_fp8_;
  double value_, ranks_, hidden_;
};

LayerBytes layer_bytes(const RunSpec& spec, int64_t layer) {
  return {spec, spec.model.is_moe_layer(layer), spec.fp8 && spec.fp8->has_layer(layer)};
}

// Whether the loss takes the logits apart and makes their gradient in the forward (nn/loss.h);
// preferences know it only behind that.
bool has_fused_loss(const RunSpec& spec) {
  return spec.sizes.tp == 1 && spec.dtype != Dtype::kFp32 && !spec.operators.plain &&
         !spec.preferences;
}

double local_vocabulary(const RunSpec& spec) {
  return as_double(padded_part(spec.model.vocab_size, spec.sizes.tp));
}

// Of a token.
PartBytes head_bytes(const RunSpec& spec) {
  const double hidden = value_bytes(spec) * as_double(spec.model.hidden_size);
  const double normed = hidden / as_double(spec.sizes.tp);
  if (has_fused_loss(spec)) return {normed + hidden, 0};
  const double vocabulary = local_vocabulary(spec);
  return {normed + hidden + 4 * vocabulary, hidden + value_bytes(spec) * vocabulary};
}

// Of the whole micro-batch.
double head_working(const RunSpec& spec) {
  const double logits = spec.tokens() * value_bytes(spec) * local_vocabulary(spec);
  const double hidden = spec.tokens() * value_bytes(spec) * as_double(spec.model.hidden_size);
  return hidden + (has_fused_loss(spec) ? std::min(logits, as_double(kLogitBytes)) : logits);
}

// Bytes, for a token of the micro-batch, of the copies of tokens that a rank receives.
double copies_bytes(const RunSpec& spec) {
  if (!spec.model.moe || spec.sizes.ep * spec.sizes.tpe == 1) return 0;
  return received_copies(spec) / as_double(spec.sizes.tp) * value_bytes(spec) *
         as_double(spec.model.hidden_size);
}

// Of one layer, for a token.
PassingBytes passing_of_layer(const RunSpec& spec, int64_t index, bool in_blocks) {
  const LayerBytes layer = layer_bytes(spec, index);
  PassingBytes bytes{.working = layer.working()};
  const double kept = layer.attention().kept + layer.rest().kept;
  if (spec.recompute.kind == Recompute::kLayer) {
    const double group = as_double(spec.recompute.layers_per_input);
    bytes.working += group * (layer.slice() + kept) - layer.slice();
  }
  if (!spec.model.is_moe_layer(index)) return bytes;
  const bool holds_experts = spec.recompute.kind == Recompute::kNothing ||
                             spec.recompute.kind == Recompute::kExpertProduct;
  if (spec.recompute.kind == Recompute::kMoeLayer) bytes.working += layer.rest().kept;
  const double copies = copies_bytes(spec);
  // In the forward they are there twice, packed and unpacked or sent and received, when the rows
  // are made.
  const double forward =
      2 * copies + layer.rows() * value_bytes(spec) * as_double(spec.model.hidden_size);
  if (in_blocks) {
    bytes.working += layer.rows() * layer.forward_working_of_row();
    bytes.travelling = copies + forward;
  } else {
    const double not_yet = holds_experts ? layer.rest().kept : 0;  // of what is counted as kept
    bytes.travelling = std::max(copies, forward - not_yet - bytes.working);
  }
  if (copies == 0) bytes.travelling = 0;
  return bytes;
}

}  // namespace

double value_bytes(const RunSpec& spec) {
  return spec.dtype == Dtype::kFp32 ? 4 : 2;
}

HeldOfChunk activation_bytes(const RunSpec& spec, const StageLayers& stage) {
  PartBytes bytes;
  for (int64_t index = stage.first; index < stage.first + stage.count; ++index) {
    const LayerBytes layer = layer_bytes(spec, index);
    const PartBytes attention = layer.attention(), rest = layer.rest();
    bytes.for_weights += attention.for_weights + rest.for_weights;
    if (spec.recompute.kind == Recompute::kLayer) {
      bytes.kept += layer.slice() / as_double(spec.recompute.layers_per_input);
      continue;
    }
    bytes.kept += layer.slice() + attention.kept;
    const bool again =
        spec.recompute.kind == Recompute::kMoeLayer && spec.model.is_moe_layer(index);
    if (!again) bytes.kept += rest.kept;
  }
  if (stage.has_head)
    for (int64_t i = 0; i <= spec.model.num_mtp_layers; ++i) bytes = bytes + head_bytes(spec);
  return {spec.tokens() * bytes.kept, spec.tokens() * bytes.for_weights};
}

PassingBytes passing_bytes(const RunSpec& spec, const StageLayers& stage, bool in_blocks) {
  PassingBytes most;
  // Layers of a kind are alike.
  for (int64_t index = stage.first; index < stage.first + stage.count; ++index) {
    const PassingBytes layer = passing_of_layer(spec, index, in_blocks);
    most.working = std::max(most.working, spec.tokens() * layer.working);
    most.travelling = std::max(most.travelling, spec.tokens() * layer.travelling);
  }
  if (stage.has_head) most.working = std::max(most.working, head_working(spec));
  if (spec.sizes.pp > 1) {  // one message that is sent, and one that is received
    most.travelling +=
        2 * spec.tokens_per_rank() * value_bytes(spec) * as_double(spec.model.hidden_size);
  }
  return most;
}

}  // namespace moetron
