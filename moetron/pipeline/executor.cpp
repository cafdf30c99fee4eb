#include "moetron/pipeline/executor.h"

#include <map>
#include <optional>

#include <ATen/ATen.h>

#include "moetron/autograd/memory_meter.h"
#include "moetron/base/error.h"
#include "moetron/pipeline/block.h"
#include "moetron/schedule/validate_schedule.h"

namespace moetron {
namespace {

// The actions of a step by what they are; at most one of each.
struct SortedStep {
  explicit SortedStep(const Step& step) {
    for (const Action& action : actions_of(step)) place_of(action.kind) = action;
  }

  std::optional<Action> forward, backward, weights, reduce;  // backward: I or B

 private:
  std::optional<Action>& place_of(ActionKind kind) {
    switch (kind) {
      case ActionKind::kForward:
        return forward;
      case ActionKind::kBackwardInput:
      case ActionKind::kBackward:
        return backward;
      case ActionKind::kBackwardWeight:
        return weights;
      case ActionKind::kReduce:
        return reduce;
    }
    throw InternalError("unknown kind of action");
  }
};

// What grew by how much, added to `sum`.
void add_growth(ActivationMemory& sum, const ActivationMemory& before,
                const ActivationMemory& after) {
  std::map<std::string, int64_t> old;
  for (const ActivationBytes& part : before.kept) old[part.purpose] = part.bytes;
  for (const ActivationBytes& part : after.kept) {
    if (part.bytes > old[part.purpose]) sum.add(part.purpose, part.bytes - old[part.purpose]);
  }
}

// What a micro-batch holds in a chunk between its F and its W.
struct Held {
  ChunkRun run;
  WeightGradQueue weights;  // of an I
};

}  // namespace

PipelinePlan::PipelinePlan(Schedule made) : schedule(std::move(made)) {
  validate_schedule(schedule);
  receives = make_receive_plan(schedule);
}

class PipelineExecutor::Run {
 public:
  Run(PipelineExecutor& executor, const PipelinePlan& plan, const PipelineTask& task)
      : chunks_(executor.chunks_),
        links_(executor.links_),
        schedule_(plan.schedule),
        task_(task),
        steps_(schedule_.steps.at(static_cast<size_t>(links_.rank()))),
        receives_(plan.receives.at(static_cast<size_t>(links_.rank()))),
        inbox_(links_, [&executor, &task](int micro_batch) {
          const TokenLayout& layout = task.micro_batches[static_cast<size_t>(micro_batch)].layout;
          return at::empty({layout.slice_size(), executor.hidden_size_}, executor.hidden_states_);
        }) {
    outcome_.losses.resize(task.micro_batches.size());
    outcome_.aux_losses.assign(chunks_.size(),
                               std::vector<std::vector<at::Tensor>>(task.micro_batches.size()));
    if (task.measures_memory) meter_.emplace();
  }

  PipelineOutcome run() {
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Step& step = steps_[i];
      if (task_.before_step) task_.before_step(step);
      for (const Message& message : receives_[i]) inbox_.begin(message);
      step_begin_ = task_.trace != nullptr ? steady_seconds() : 0;
      run_step(step);
      if (task_.trace != nullptr)
        task_.trace->steps.push_back({step, step_begin_, steady_seconds()});
    }
    end_measuring();
    return std::move(outcome_);
  }

 private:
  void run_step(const Step& step) {
    const SortedStep sorted(step);
    StepResults results;
    if (sorted.forward) {
      results.on_output = [&](at::Tensor output) { put(*sorted.forward, std::move(output)); };
    }
    if (sorted.backward) {
      results.on_d_input = [&](at::Tensor d_input) { put(*sorted.backward, std::move(d_input)); };
    }
    const bool reduces_by_layer = sorted.reduce && sorted.backward;
    if (sorted.forward && sorted.backward) {
      const ChunkHooks forward_hooks = hooks(*sorted.forward, false);
      const ChunkHooks backward_hooks = hooks(*sorted.backward, false);
      ChunkForward forward = make_forward(*sorted.forward, forward_hooks);
      ChunkBackward backward = make_backward(*sorted.backward, backward_hooks);
      run_forward_beside_backward(forward, backward, results);
    } else if (sorted.forward) {
      const ChunkHooks forward_hooks = hooks(*sorted.forward, false);
      ChunkForward forward = make_forward(*sorted.forward, forward_hooks);
      run_forward(forward, make_filler(sorted.weights, num_waits(chunk_of(*sorted.forward))),
                  results);
    } else if (sorted.backward) {
      const ChunkHooks backward_hooks = hooks(*sorted.backward, reduces_by_layer);
      ChunkBackward backward = make_backward(*sorted.backward, backward_hooks);
      run_backward(backward, make_filler(sorted.weights, num_waits(chunk_of(*sorted.backward))),
                   results);
    } else if (sorted.weights) {
      make_filler(sorted.weights, 0).finish();
    }
    if (sorted.forward) end_forward(*sorted.forward);
    if (sorted.backward && sorted.backward->kind == ActionKind::kBackward) free(*sorted.backward);
    if (sorted.weights && sorted.weights->part != Part::kFirstHalf) free(*sorted.weights);
    if (sorted.reduce && !reduces_by_layer) reduce(sorted.reduce->chunk);
  }

  Chunk& chunk_of(const Action& action) { return chunks_.at(static_cast<size_t>(action.chunk)); }
  const MicroBatch& micro_batch_of(const Action& action) const {
    return task_.micro_batches[static_cast<size_t>(action.micro_batch)];
  }
  Held& held_of(const Action& action) { return held_.at({action.chunk, action.micro_batch}); }

  ChunkHooks hooks(const Action& action, bool reduces_by_layer) {
    ChunkHooks hooks;
    if (action.micro_batch == 0) {
      hooks.before_forward = task_.before_first_forward;
      if (meter_) hooks.meter = &*meter_;
    }
    if (reduces_by_layer) hooks.after_backward = task_.layer_done;
    hooks.trace = trace_of(action);
    return hooks;
  }

  TraceTarget trace_of(const Action& action) const {
    return {task_.trace, {action.chunk, action.micro_batch, 0}};
  }

  ChunkForward make_forward(const Action& action, const ChunkHooks& hooks) {
    if (meter_ && action.micro_batch == 0) before_forward_ = meter_->measure();
    ChunkRun& run = held_[{action.chunk, action.micro_batch}].run;
    return {
        chunk_of(action), take_input(action), micro_batch_of(action), task_.with_grad, run, hooks};
  }

  ChunkBackward make_backward(const Action& action, const ChunkHooks& hooks) {
    Held& held = held_of(action);
    WeightGradQueue* later = action.kind == ActionKind::kBackwardInput ? &held.weights : nullptr;
    return {chunk_of(action),
            take_input(action),
            task_.d_aux,
            micro_batch_of(action),
            later,
            held.run,
            hooks};
  }

  Filler make_filler(const std::optional<Action>& weights, size_t num_waits) {
    if (!weights) return {};
    WeightGradQueue& tasks = held_of(*weights).weights;
    const bool is_half = weights->part == Part::kFirstHalf;
    return {tasks, is_half ? (tasks.size() + 1) / 2 : tasks.size(), num_waits, trace_of(*weights)};
  }

  // The input of an F, or the output's gradient of an I or B; of the embedding: undefined.
  at::Tensor take_input(const Action& action) {
    const auto message = needed_by(schedule_.placement, links_.rank(), action);
    if (!message) {
      if (action.kind == ActionKind::kForward) return {};
      return at::full_like(outcome_.losses[static_cast<size_t>(action.micro_batch)], task_.d_loss);
    }
    if (sender(schedule_.placement, *message) != links_.rank()) {
      at::Tensor received = inbox_.take(*message);
      if (task_.trace != nullptr) step_begin_ = steady_seconds();
      return received;
    }
    const auto own = own_messages_.find({message->from_stage, message->micro_batch});
    MT_CHECK(own != own_messages_.end(), "a chunk's result is asked for before it is there");
    at::Tensor taken = std::move(own->second);
    own_messages_.erase(own);
    return taken;
  }

  void put(const Action& action, at::Tensor result) {
    const auto message = made_by(schedule_.placement, links_.rank(), action);
    if (!message) {
      if (action.kind != ActionKind::kForward) return;  // of the embedding
      outcome_.losses[static_cast<size_t>(action.micro_batch)] = std::move(result);
    } else if (receiver(schedule_.placement, *message) == links_.rank()) {
      own_messages_[{message->from_stage, message->micro_batch}] = std::move(result);
    } else {
      links_.send(*message, result.contiguous());
    }
  }

  void end_forward(const Action& action) {
    Held& held = held_of(action);
    const auto chunk = static_cast<size_t>(action.chunk);
    outcome_.aux_losses[chunk][static_cast<size_t>(action.micro_batch)] =
        std::move(held.run.aux_losses);
    if (meter_ && action.micro_batch == 0) {
      add_growth(outcome_.activation_memory, before_forward_, meter_->measure());
    }
    if (!task_.with_grad) free(action);
  }

  void free(const Action& action) {
    held_.erase({action.chunk, action.micro_batch});
    if (action.chunk == 0 && action.micro_batch == 0) end_measuring();
  }

  void end_measuring() {
    if (!meter_) return;
    outcome_.activation_memory.peak_bytes = meter_->measure().peak_bytes;
    meter_.reset();
  }

  void reduce(int chunk) {
    if (!task_.layer_done) return;
    auto& layers = chunks_.at(static_cast<size_t>(chunk)).layers;
    for (size_t i = layers.size(); i-- > 0;) task_.layer_done(*layers[i]);
  }

  std::vector<Chunk>& chunks_;
  StageLinks& links_;
  const Schedule& schedule_;
  const PipelineTask& task_;
  const StepList& steps_;
  const std::vector<std::vector<Message>>& receives_;  // by step
  Inbox inbox_;
  std::map<std::pair<int, int>, Held> held_;                // by chunk and micro-batch
  std::map<std::pair<int, int>, at::Tensor> own_messages_;  // by sending stage and micro-batch
  PipelineOutcome outcome_;
  std::optional<MemoryMeter> meter_;
  ActivationMemory before_forward_;
  double step_begin_ = 0;  // of the trace
};

PipelineExecutor::PipelineExecutor(std::vector<Chunk>& chunks, StageLinks& links,
                                   int64_t hidden_size, const at::TensorOptions& hidden_states)
    : chunks_(chunks), links_(links), hidden_size_(hidden_size), hidden_states_(hidden_states) {}

PipelineOutcome PipelineExecutor::run(const PipelinePlan& plan, const PipelineTask& task) {
  const Schedule& schedule = plan.schedule;
  MT_CHECK(task.micro_batches.size() == static_cast<size_t>(schedule.num_micro_batches),
           "a schedule of ", schedule.num_micro_batches, " micro-batches is given ",
           task.micro_batches.size());
  return Run(*this, plan, task).run();
}

}  // namespace moetron
