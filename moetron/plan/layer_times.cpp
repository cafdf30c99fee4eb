#include "moetron/plan/layer_times.h"

#include <algorithm>

#include "moetron/base/units.h"
#include "moetron/plan/dispatch_time.h"

namespace moetron {
namespace {

// What passes through memory in the backward of an operation, of what does in its forward: it reads
// the gradient beside what the forward read.
constexpr double kBackwardPasses = 1.5;
constexpr double kValueBytes = 2;

PartTimes sum(std::initializer_list<PartTimes> parts) {
  PartTimes total;
  for (const PartTimes& part : parts) {
    total.forward += part.forward;
    total.backward_input += part.backward_input;
    total.backward_weight += part.backward_weight;
  }
  return total;
}

class Clock {
 public:
  Clock(const RunSpec& spec, const Hardware& hardware) : spec_(spec), hardware_(hardware) {}

  // rows x inner times `groups` matrices of inner x outer (each for its share of the rows). Weights
  // that low-rank updates stand beside have no gradient; the updates cost what passes through
  // memory for their narrow products, as if every matrix had one.
  PartTimes product(double rows, double inner, double outer, double groups = 1) const {
    PartTimes times = fixed_product(rows, inner, outer, groups);
    const double values = kValueBytes * rows * (inner + outer) / hardware_.memory_rate;
    if (!spec_.lora) {
      const double weights = 8 * groups * inner * outer / hardware_.memory_rate;  // fp32, + and =
      const double compute = 2 * rows * inner * outer / rate(groups);
      return sum({times, slowed({0, 0, std::max(compute, values + weights)})});
    }
    const double added = kValueBytes * rows * outer / hardware_.memory_rate;  // to what is there
    return sum({times, slowed({values + added, values + added, 2 * values})});
  }

  // Without a gradient of the matrices.
  PartTimes fixed_product(double rows, double inner, double outer, double groups = 1) const {
    const double compute = 2 * rows * inner * outer / rate(groups);
    const double bytes = kValueBytes * (rows * (inner + outer) + groups * inner * outer);
    const double one = std::max(compute, bytes / hardware_.memory_rate);
    return slowed({one, one, 0});
  }

  // Of the matrices that low-rank updates leave alone: the router's and the head's.
  PartTimes plain_product(double rows, double inner, double outer) const {
    return spec_.lora ? fixed_product(rows, inner, outer) : product(rows, inner, outer);
  }

  // Values read or written by operations without a product.
  PartTimes passes(double values) const {
    const double forward = kValueBytes * values / hardware_.memory_rate;
    return slowed({forward, kBackwardPasses * forward, 0});
  }

  // Causal attention over whole sequences on the local heads.
  PartTimes attention_core(double width_per_position, int64_t head_dim) const {
    const AttentionRate& rate = attention_rate(hardware_, head_dim);
    const double flops =
        2 * width_per_position * spec_.tokens() * as_double(spec_.batch.seq_length);
    return slowed({flops / rate.forward, 2.5 * flops / rate.backward, 0});
  }

  // Tensor-parallel ranks gather a part's input and scatter its output, and their gradients the
  // other way round. The gathered input is kept for the weights' gradient.
  PartTimes tensor_parallel() const {
    const double both = 2 * tensor_collective();
    return {both, both, 0};
  }

  // Either of the two: what an end of the model has, there and back.
  double tensor_collective() const {
    if (spec_.sizes.tp == 1) return 0;
    const double ranks = as_double(spec_.sizes.tp);
    const double bytes =
        kValueBytes * spec_.tokens() * as_double(spec_.model.hidden_size) * (ranks - 1) / ranks;
    return bytes / hardware_.node_rate + hardware_.tensor_overhead;
  }

 private:
  double rate(double groups) const {
    return groups > 1 ? hardware_.grouped_rate : hardware_.matrix_rate;
  }

  PartTimes slowed(const PartTimes& times) const {
    const double by = hardware_.compute_slowdown;
    return {by * times.forward, by * times.backward_input, by * times.backward_weight};
  }

  const RunSpec& spec_;
  const Hardware& hardware_;
};

PartTimes attention_of(const RunSpec& spec, const Clock& clock) {
  const ModelConfig& model = spec.model;
  const double hidden = as_double(model.hidden_size);
  const double heads = as_double(model.num_attention_heads) / as_double(spec.sizes.tp);
  const double tokens = spec.tokens();
  const double query = heads * as_double(model.head_dim);
  const double value = heads * as_double(model.value_head_dim());
  // Two norms and two additions to the residual.
  const PartTimes residual = clock.passes(spec.tokens_per_rank() * 10 * hidden);
  const PartTimes core = clock.attention_core((query + value) / 2, model.head_dim);
  const PartTimes out = clock.product(tokens, value, hidden);
  if (!model.mla) {
    const double keys =
        std::max(1.0, as_double(model.num_key_value_heads) / as_double(spec.sizes.tp)) *
        as_double(model.head_dim);
    const double turned = (query + keys) * (model.qk_norm ? 4 : 2);  // rotation, norm
    return sum({residual, core, out, clock.product(tokens, hidden, query + 2 * keys),
                clock.passes(tokens * turned), clock.tensor_parallel()});
  }
  const MlaConfig& mla = *model.mla;
  const double q_rank = as_double(mla.q_lora_rank);
  const double kv_rank = as_double(mla.kv_lora_rank);
  const double rope = as_double(mla.qk_rope_head_dim);
  const double up = heads * as_double(mla.qk_nope_head_dim) + value;
  const PartTimes queries =
      q_rank > 0
          ? sum({clock.product(tokens, hidden, q_rank), clock.product(tokens, q_rank, query)})
          : clock.product(tokens, hidden, query);
  return sum({residual, core, out, queries, clock.product(tokens, hidden, kv_rank + rope),
              clock.product(tokens, kv_rank, up),
              clock.passes(tokens * (4 * query + 2 * (q_rank + kv_rank))),
              clock.tensor_parallel()});
}

// A gated MLP: two products into `width`, one out of it.
PartTimes mlp_of(const RunSpec& spec, const Clock& clock, int64_t width) {
  const double hidden = as_double(spec.model.hidden_size);
  const double local = as_double(width) / as_double(spec.sizes.tp);
  return sum({clock.product(spec.tokens(), hidden, 2 * local),
              clock.product(spec.tokens(), local, hidden), clock.passes(3 * spec.tokens() * local),
              clock.tensor_parallel()});
}

PartTimes experts_of(const RunSpec& spec, const Clock& clock) {
  const MoeConfig& moe = *spec.model.moe;
  const double hidden = as_double(spec.model.hidden_size);
  const double local = as_double(moe.num_experts) / as_double(spec.sizes.ep);
  const double width = as_double(moe.expert_intermediate_size) / as_double(spec.sizes.tpe);
  const double rows = spec.tokens_per_rank() * as_double(moe.top_k) * as_double(spec.sizes.tpe);
  // Sorted by expert, and back: each row is read and written twice.
  return sum({clock.product(rows, hidden, 2 * width, local),
              clock.product(rows, width, hidden, local),
              clock.passes(rows * (3 * width + 4 * hidden))});
}

LayerTimes times_without_launches(const RunSpec& spec, const Hardware& hardware, bool has_experts) {
  const Clock clock(spec, hardware);
  LayerTimes times;
  times.attention = attention_of(spec, clock);
  if (!has_experts) {
    times.experts = mlp_of(spec, clock, spec.model.intermediate_size);
    times.has_experts = false;
    return times;
  }
  const MoeConfig& moe = *spec.model.moe;
  const PartTimes router = clock.plain_product(
      spec.tokens_per_rank(), as_double(spec.model.hidden_size), as_double(moe.num_experts));
  times.attention = sum({times.attention, router});
  times.experts = experts_of(spec, clock);
  if (moe.shared_intermediate_size > 0)
    times.shared = mlp_of(spec, clock, moe.shared_intermediate_size);
  times.dispatch = dispatch_time(spec, hardware);
  return times;
}

}  // namespace

LayerTimes layer_times(const RunSpec& spec, const Hardware& hardware, bool has_experts) {
  LayerTimes times = times_without_launches(spec, hardware, has_experts);
  for (PartTimes* part : {&times.attention, &times.experts, &times.shared}) {
    if (part->forward == 0) continue;  // there is none
    const double launched = hardware.launch_overhead;
    *part = sum({*part, {launched, launched, launched}});
  }
  return times;
}

PartTimes embedding_times(const RunSpec& spec, const Hardware& hardware) {
  const Clock clock(spec, hardware);
  const double values = spec.tokens() * as_double(spec.model.hidden_size);
  const PartTimes passes = clock.passes(2 * values);
  const double scattered = clock.tensor_collective();
  const double summed = spec.lora ? 0 : 4 * passes.forward;  // into fp32 accumulators
  return {passes.forward + scattered, scattered, summed};
}

PartTimes head_times(const RunSpec& spec, const Hardware& hardware) {
  const Clock clock(spec, hardware);
  const double hidden = as_double(spec.model.hidden_size);
  const double vocabulary = as_double(spec.model.vocab_size) / as_double(spec.sizes.tp);
  const auto num_mtp = as_double(spec.model.num_mtp_layers);
  // The norm; the loss reads the logits for their maximum and their sum.
  const double gathered = clock.tensor_collective();
  const PartTimes once = sum({clock.plain_product(spec.tokens(), hidden, vocabulary),
                              clock.passes(spec.tokens() * 2 * vocabulary),
                              clock.passes(2 * spec.tokens_per_rank() * hidden),
                              {gathered, gathered, 0}});
  if (num_mtp == 0) return once;
  // Embedding and hidden state, joined by a product.
  const PartTimes join = clock.product(spec.tokens(), 2 * hidden, hidden);
  const PartTimes mtp = sum({once, join});
  return sum(
      {once, {num_mtp * mtp.forward, num_mtp * mtp.backward_input, num_mtp * mtp.backward_weight}});
}

}  // namespace moetron
