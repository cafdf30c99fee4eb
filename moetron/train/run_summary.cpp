#include "moetron/train/run_summary.h"

#include <optional>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "moetron/arch/flops.h"
#include "moetron/arch/mesh_layout.h"
#include "moetron/base/error.h"
#include "moetron/metrics/step_printer.h"
#include "moetron/models/model.h"
#include "moetron/nn/fused_attention.h"
#include "moetron/optim/adamw.h"
#include "moetron/plan/checkpoint_size.h"
#include "moetron/run/describe_run.h"

namespace moetron {
namespace {

// Where a rank's states lie, if they are divided between a GPU and its host.
std::optional<std::string> describe_states(const RunSpec& spec, const Model& model,
                                           AdamW& optimizer) {
  const auto gibibytes = [&](c10::DeviceType where) {
    const auto bytes = static_cast<double>(optimizer.state_bytes(where));
    return readable_number(bytes / (int64_t{1} << 30));
  };
  const c10::DeviceType device = model.options().device().type();
  if (device == c10::kCPU || !spec.optimizer.is_hybrid) return std::nullopt;
  return concat("moments and masters of rank 0: ", gibibytes(c10::kCPU), " GiB on the host, ",
                gibibytes(device), " GiB on the GPU");
}

// Which part of the model is trained, and what rank 0 holds for it; nothing where all is.
std::optional<std::string> describe_part(const RunSpec& spec, const Model& model,
                                         AdamW& optimizer) {
  const std::string part = describe_tuning(spec, trained_elements(spec));
  if (part.empty()) return std::nullopt;
  double weights = 0, gradients = 0;
  for (const Parameter* parameter : model.parameters()) {
    const auto elements = static_cast<double>(parameter->value().numel());
    if (!parameter->is_tied())
      weights += elements * static_cast<double>(parameter->value().element_size());
    if (parameter->needs_grad()) gradients += elements * sizeof(float);
  }
  const c10::DeviceType device = model.options().device().type();
  auto states = static_cast<double>(optimizer.state_bytes(c10::kCPU));
  if (device != c10::kCPU) states += static_cast<double>(optimizer.state_bytes(device));
  const auto megabytes = [](double bytes) { return readable_number(bytes / 1e6); };
  return concat(part, "; rank 0 holds ", megabytes(weights), " MB of weights, ",
                megabytes(gradients), " of gradients, ", megabytes(states), " of optimizer states");
}

// "the fastest; attention: cuDNN's flash attention"
std::string describe_operators(const RunSpec& spec, const Model& model) {
  const ModelConfig& m = spec.model;
  constexpr int64_t kTokens = 2;
  const at::Tensor q = at::empty({1, kTokens, 1, m.head_dim}, model.options()),
                   v = at::empty({1, kTokens, 1, m.value_head_dim()}, model.options());
  return concat(spec.operators.plain ? "plain ones of ATen" : "the fastest", "; attention: ",
                spec.operators.plain_attention ? "unfused" : fastest_attention_name(q, v));
}

// ": 8 pairs", of a global batch; nothing where labels are learned.
std::string describe_pairs(const RunSpec& spec) {
  if (!spec.preferences) return "";
  const int64_t pairs = spec.batch.global_batch_size / 2;
  return concat(": ", pairs, pairs == 1 ? " pair" : " pairs");
}

}  // namespace

std::string summarize_run(const RunSpec& spec, const Model& model, AdamW& optimizer,
                          const std::string& data, int64_t step) {
  const double flops = flops_per_token(spec.model, spec.batch.seq_length);
  std::string text = concat("model     ", describe_model(spec.model),
                            model.options().dtype() == at::kFloat ? ", fp32" : ", bf16");
  if (const auto part = describe_part(spec, model, optimizer))
    text += concat("\ntrained   ", *part);
  text += concat("\nmesh      ", describe(spec.sizes), "; ", at::get_num_threads(),
                 at::get_num_threads() == 1 ? " thread" : " threads", " a rank");
  if (spec.sizes.world > 1) text += concat("\n          ", describe_groups(spec.sizes));
  text += concat("\noperators ", describe_operators(spec, model));
  if (spec.sizes.pp > 1) text += concat("\npipeline  ", describe_pipeline(spec));
  if (const auto places = describe_states(spec, model, optimizer))
    text += concat("\nadam      ", *places);
  text +=
      concat("\nbatch     ", spec.batch.global_batch_size, " sequences of ", spec.batch.seq_length,
             " tokens", describe_pairs(spec), ", ", spec.batch.micro_batch_size,
             " at a time on a rank; ", readable_number(flops / 1e6), " MFLOP a token");
  text += concat("\ndata      ", data);
  text += concat("\nsteps     ", step, " to ", spec.steps.train);
  return text;
}

}  // namespace moetron
