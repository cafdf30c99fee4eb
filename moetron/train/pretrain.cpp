#include "moetron/train/pretrain.h"

#include <chrono>
#include <cstdlib>
#include <optional>
#include <sys/resource.h>
#include <thread>

#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include "moetron/arch/config_writer.h"
#include "moetron/arch/flops.h"
#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/comm/communicator.h"
#include "moetron/config/option_value.h"
#include "moetron/models/model.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/lr_schedule.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/train/datasets.h"
#include "moetron/train/run_log.h"
#include "moetron/train/start.h"
#include "moetron/train/stop.h"
#include "moetron/train/train_step.h"

namespace moetron {
namespace {

using Clock = std::chrono::steady_clock;

LrSchedule lr_schedule(const Options& options) {
  LrSchedule schedule;
  schedule.lr = options.optimizer.lr;
  schedule.min_lr = options.optimizer.min_lr;
  schedule.warmup_iters = options.optimizer.lr_warmup_iters;
  schedule.decay_iters = options.optimizer.lr_decay_iters.value_or(options.training.train_iters);
  schedule.style = options.optimizer.lr_decay_style;
  check_lr_schedule(schedule);
  return schedule;
}

AdamWSettings adamw_settings(const OptimizerOptions& options) {
  return {.beta1 = options.adam_beta1,
          .beta2 = options.adam_beta2,
          .eps = options.adam_eps,
          .weight_decay = options.weight_decay};
}

// Never for an interval of 0.
bool is_multiple(int64_t step, int64_t interval) {
  return interval > 0 && step % interval == 0;
}

int64_t peak_memory_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

// A run on one rank: everything that lives from the first step to the last.
class Pretraining {
 public:
  Pretraining(const Options& options, Communicator& world)
      : options_(options),
        world_(world),
        schedule_(lr_schedule(options)),
        start_(find_start(options, world)),
        dtype_(options.training.dtype == Dtype::kBf16 ? at::kBFloat16 : at::kFloat),
        datasets_(open_datasets(options, start_.model, start_.tokenizer.get(), world)),
        model_(start_.model, dtype_),
        optimizer_(model_.parameters(), adamw_settings(options.optimizer)),
        train_step_(model_, optimizer_, world, options.optimizer.clip_grad),
        batches_{options.training.micro_batch_size, options.training.global_batch_size},
        stop_(options.checkpoint.save) {
    load();
    log_.emplace(options_, world_.rank() == 0, step_);
    log_->say(summary());
  }

  int run() {
    if (step_ >= options_.training.train_iters) {
      log_->say(concat("nothing is left to do: step ", step_, " of ", options_.training.train_iters,
                       " is done"));
    }
    while (step_ < options_.training.train_iters) {
      log_->step(one_step());
      const bool stops = stop_.agreed(world_);
      const bool exits = is_multiple(step_, options_.training.exit_interval);
      const bool last = step_ == options_.training.train_iters;
      if (last || stops || exits || is_multiple(step_, options_.checkpoint.save_interval)) save();
      if (stops && world_.rank() == 0) stop_.clear_file();
      if (last) break;
      if (stops) return stopped();
      if (exits) {
        log_->say(concat("exit-interval: left after step ", step_));
        break;
      }
    }
    log_->finish();
    return kExitDone;
  }

 private:
  void load() {
    if (start_.resume) {
      continue_from(start_.resume->folder);
      return;
    }
    if (start_.weights.empty()) {
      model_.initialize(static_cast<uint64_t>(options_.runtime.seed));
    } else {
      load_weights(start_.weights, model_.weights());
    }
    optimizer_.reset_masters();
  }

  void continue_from(const std::filesystem::path& folder) {
    const Json trainer = load_checkpoint(folder, {}, {});
    step_ = start_.resume->step;
    consumed_samples_ = trainer.at("consumed_samples").get<int64_t>();
    const int64_t optimizer_steps = trainer.at("optimizer_steps").get<int64_t>();
    const bool has_states = trainer.at("has_optimizer").get<bool>();
    if (has_states && !options_.checkpoint.no_load_optim) {
      load_checkpoint(folder, model_.weights(), optimizer_.states());
      train_step_.set_optimizer_steps(optimizer_steps);
      return;
    }
    load_checkpoint(folder, model_.weights(), {});
    optimizer_.reset_masters();
    log_info(concat("the optimizer begins anew (", has_states ? "no-load-optim" : "no-save-optim",
                    "): the losses will differ from an uninterrupted run's"));
  }

  StepRecord one_step() {
    const auto begin = Clock::now();
    const StepBatch batch =
        load_step_batch(*datasets_.train, consumed_samples_, batches_, world_, /*training=*/true);
    const double lr = learning_rate(schedule_, step_);
    const StepResult result = train_step_.run(batch, step_ + 1, lr);
    ++step_;
    consumed_samples_ += batches_.global_batch_size;

    StepRecord record;
    record.step = step_;
    record.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    record.loss = result.loss;
    if (result.aux_loss != 0) record.aux_loss = result.aux_loss;
    record.grad_norm = result.grad_norm;
    record.lr = lr;
    record.router_balance = result.balance;
    const double tokens = static_cast<double>(batch.num_tokens) / world_.size();
    record.tokens_per_second = tokens / record.seconds;
    record.tflops_per_second = record.tokens_per_second *
                               flops_per_token(start_.model, options_.training.seq_length) / 1e12;
    record.memory_bytes = peak_memory_bytes();
    record.consumed_samples = consumed_samples_;
    record.validation_loss = maybe_evaluate();
    return record;
  }

  std::optional<double> maybe_evaluate() {
    if (datasets_.validation == nullptr || options_.training.eval_iters <= 0) return std::nullopt;
    const bool last = step_ == options_.training.train_iters;
    if (!last && step_ % options_.training.eval_interval != 0) return std::nullopt;
    return evaluate(model_, *datasets_.validation, options_.training.eval_iters, batches_, world_);
  }

  void save() {
    if (options_.checkpoint.save.empty()) return;
    const PhaseScope phase(world_, concat("saving step ", step_));
    CheckpointContent content;
    ModelConfig config = start_.model;
    config.dtype = dtype_ == at::kFloat ? "float32" : "bfloat16";
    content.config = write_model_config(config).dump(2) + "\n";
    if (start_.tokenizer != nullptr && start_.tokenizer->eos_id()) {
      content.generation_config =
          Json{{"eos_token_id", *start_.tokenizer->eos_id()}}.dump(2) + "\n";
    }
    content.tokenizer_folder = start_.tokenizer_folder;
    content.weights = model_.weights();
    if (!options_.checkpoint.no_save_optim) content.states = optimizer_.states();
    content.trainer = Json{{"step", step_},
                           {"consumed_samples", consumed_samples_},
                           {"optimizer_steps", train_step_.optimizer_steps()},
                           {"has_optimizer", !options_.checkpoint.no_save_optim},
                           {"ranks", world_.size()},
                           {"options", options_to_json(options_)}}
                          .dump(2) +
                      "\n";
    const auto folder = save_checkpoint(options_.checkpoint.save, step_, content, &world_);
    log_->say(concat("saved ", folder.string()));
  }

  int stopped() {
    log_->say(concat("stopped on request after step ", step_,
                     options_.checkpoint.save.empty() ? "" : "; the same command continues"));
    log_->finish();
    // torchrun takes any other code for a fault and would end or restart the group.
    return std::getenv("TORCHELASTIC_RUN_ID") != nullptr ? kExitDone : kExitStopped;
  }

  std::string summary() const {
    int64_t total = 0;
    for (const NamedSlice& slice : model_.weights()) total += slice.view.numel();
    const double flops = flops_per_token(start_.model, options_.training.seq_length);
    const ModelConfig& m = start_.model;
    std::string text =
        concat("model     ", family_name(m.family), ", ", readable_number(total / 1e6),
               " M parameters, ", m.num_layers, " layers");
    if (m.moe) text += concat(", ", m.moe->num_experts, " experts, ", m.moe->top_k, " a token");
    text += concat(", vocabulary ", m.vocab_size, ", ", dtype_ == at::kFloat ? "fp32" : "bf16");
    text += concat("\nranks     ", world_.size(), " data-parallel, ", at::get_num_threads(),
                   at::get_num_threads() == 1 ? " thread each" : " threads each");
    text += concat("\nbatch     ", batches_.global_batch_size, " sequences of ",
                   options_.training.seq_length, " tokens, ", batches_.micro_batch_size,
                   " at a time on a rank; ", readable_number(flops / 1e6), " MFLOP a token");
    text += concat("\ndata      ", datasets_.description);
    text += concat("\nsteps     ", step_, " to ", options_.training.train_iters);
    return text;
  }

  const Options& options_;
  Communicator& world_;
  LrSchedule schedule_;  // before data and model: a mistake in it should not wait for them
  RunStart start_;
  at::ScalarType dtype_;
  TrainingData datasets_;
  Model model_;
  AdamW optimizer_;
  TrainStep train_step_;
  BatchSettings batches_;
  StopRequest stop_;
  std::optional<RunLog> log_;
  int64_t step_ = 0;
  int64_t consumed_samples_ = 0;
};

}  // namespace

int pretrain(const Options& options, Communicator& world) {
  return Pretraining(options, world).run();
}

}  // namespace moetron
