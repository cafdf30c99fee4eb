#include "moetron/metrics/metric.h"

#include "moetron/base/error.h"

namespace moetron {
namespace {

using Number = std::optional<double>;

Number number(int64_t value) {
  return static_cast<double>(value);
}

Number of_balance(const StepRecord& record, double RouterBalance::*value) {
  if (!record.router_balance) return std::nullopt;
  return (*record.router_balance).*value;
}

Number of_rewards(const std::optional<Rewards>& rewards, double Rewards::*value) {
  if (!rewards) return std::nullopt;
  return (*rewards).*value;
}

constexpr Metric kMetrics[] = {
    {"loss", "loss (nats per token)", [](const StepRecord& r) -> Number { return r.loss; },
     "train/loss", "lm loss", "lm loss"},
    {"validation_loss", "validation loss (nats per token)",
     [](const StepRecord& r) { return r.validation_loss; }, "validation/loss", "lm loss validation",
     "lm loss value"},
    {"validation_perplexity", "validation perplexity",
     [](const StepRecord& r) { return validation_perplexity(r); }, "validation/perplexity",
     "lm loss validation ppl", "lm loss value ppl"},
    {"rewards.chosen", "reward of chosen answers (nats)",
     [](const StepRecord& r) { return of_rewards(r.rewards, &Rewards::chosen); },
     "train/rewards/chosen"},
    {"rewards.rejected", "reward of rejected answers (nats)",
     [](const StepRecord& r) { return of_rewards(r.rewards, &Rewards::rejected); },
     "train/rewards/rejected"},
    {"rewards.accuracies", "pairs whose chosen answer has the higher reward (share)",
     [](const StepRecord& r) { return of_rewards(r.rewards, &Rewards::accuracies); },
     "train/rewards/accuracies"},
    {"rewards.margins", "reward of chosen answers less that of rejected ones (nats)",
     [](const StepRecord& r) { return of_rewards(r.rewards, &Rewards::margins); },
     "train/rewards/margins"},
    {"validation_rewards.accuracies",
     "validation pairs whose chosen answer has the higher reward (share)",
     [](const StepRecord& r) { return of_rewards(r.validation_rewards, &Rewards::accuracies); },
     "validation/rewards/accuracies"},
    {"validation_rewards.margins",
     "reward of chosen validation answers less that of rejected ones (nats)",
     [](const StepRecord& r) { return of_rewards(r.validation_rewards, &Rewards::margins); },
     "validation/rewards/margins"},
    {"aux_loss", "aux loss", [](const StepRecord& r) { return r.aux_loss; }, "train/aux_loss",
     "load_balancing_loss", "load_balancing_loss"},
    {"grad_norm", "gradient norm before clipping", [](const StepRecord& r) { return r.grad_norm; },
     "train/grad_norm", "grad-norm", "grad norm"},
    {"params_norm", "norm of all parameters", [](const StepRecord& r) { return r.params_norm; },
     "train/params_norm", "params-norm", "params norm"},
    {"num_zeros_in_grad", "elements of the gradients that are zero",
     [](const StepRecord& r) -> Number {
       return r.num_zeros_in_grad ? number(*r.num_zeros_in_grad) : std::nullopt;
     },
     "train/num_zeros_in_grad", "num-zeros", "num zeros"},
    {"lr", "learning rate", [](const StepRecord& r) -> Number { return r.lr; }, "train/lr",
     "learning-rate", "learning rate"},
    {"tokens_per_second", "tokens per second and device",
     [](const StepRecord& r) -> Number { return r.tokens_per_second; },
     "speed/tokens_per_second_per_device", "", ""},
    {"tflops_per_second", "model TFLOP per second and device",
     [](const StepRecord& r) -> Number { return r.tflops_per_second; }, "speed/tflops_per_device",
     "throughput", "throughput per GPU (TFLOP/s/GPU)"},
    {"mfu", "model FLOP utilization (share of the peak)", [](const StepRecord& r) { return r.mfu; },
     "speed/mfu", "", ""},
    {"seconds", "time of a step (seconds)", [](const StepRecord& r) -> Number { return r.seconds; },
     "speed/seconds_per_step", "iteration-time", "elapsed time per iteration (ms)", 1e-3},
    {"memory_bytes", "peak memory of rank 0 (bytes)",
     [](const StepRecord& r) { return number(r.memory_bytes); }},
    {"consumed_samples", "samples since the start of training",
     [](const StepRecord& r) { return number(r.consumed_samples); }},
    {"activation_memory.peak_bytes", "activations of a micro-batch at their most (bytes)",
     [](const StepRecord& r) -> Number {
       if (!r.activation_memory) return std::nullopt;
       return number(r.activation_memory->peak_bytes);
     }},
    {"router_balance.max_load", "rows of the fullest expert over the mean, worst layer",
     [](const StepRecord& r) { return of_balance(r, &RouterBalance::max_load); }},
    {"router_balance.mean_load", "rows of the fullest expert over the mean, mean of the layers",
     [](const StepRecord& r) { return of_balance(r, &RouterBalance::mean_load); }},
    {"router_balance.idle_share", "experts without a row (share)",
     [](const StepRecord& r) { return of_balance(r, &RouterBalance::idle_share); }},
    {"router_balance.entropy", "entropy of the experts' load (1: even)",
     [](const StepRecord& r) -> Number {
       return r.router_balance ? r.router_balance->entropy : std::nullopt;
     }},
    {"router_balance.num_dead", "experts without a row",
     [](const StepRecord& r) -> Number {
       if (!r.router_balance || !r.router_balance->num_dead) return std::nullopt;
       return number(*r.router_balance->num_dead);
     }},
};

}  // namespace

const Metric& metric_named(const std::string& name) {
  std::string names;
  for (const Metric& metric : kMetrics) {
    if (metric.name == name) return metric;
    names += concat(names.empty() ? "" : ", ", metric.name);
  }
  throw ConfigError(concat("metric (", name, ") is none of ", names));
}

CurveNames names_of(const Metric& metric) {
  CurveNames names;
  for (const std::string_view name :
       {std::string_view(metric.name), metric.megatron_tag, metric.tag}) {
    if (!name.empty()) names.push_back(name);
  }
  return names;
}

}  // namespace moetron
