#include "moetron/pipeline/executor.h"

#include <map>
#include <optional>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/measure/memory_meter.h"
#include "moetron/pipeline/block.h"
#include "moetron/schedule/validate_schedule.h"

namespace moetron {
namespace {

// What grew by how much, added to `sum`.
void add_growth(ActivationMemory& sum, const ActivationMemory& before,
                const ActivationMemory& after) {
  std::map<std::string, int64_t> old;
  for (const ActivationBytes& part : before.kept) old[part.purpose] = part.bytes;
  for (const ActivationBytes& part : after.kept) {
    if (part.bytes > old[part.purpose]) sum.add(part.purpose, part.bytes - old[part.purpose]);
  }
}

at::ScalarType scalar_type(Dtype dtype) {
  MT_CHECK(dtype != Dtype::kAuto, "a slot at a stage's border has no type of its own");
  return dtype == Dtype::kFp32 ? at::kFloat : at::kBFloat16;
}

at::Tensor empty_slot(const SlotShape& slot, int64_t rows, c10::Device device) {
  return at::empty({rows, slot.width}, at::TensorOptions(device).dtype(scalar_type(slot.dtype)));
}

std::vector<Value> values_of(std::vector<at::Tensor> tensors) {
  std::vector<Value> values(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) values[i].data = std::move(tensors[i]);
  return values;
}

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
        borders_(executor.borders_),
        inbox_(links_, [this](const Message& message) { return empty_message(message); }) {
    outcome_.losses.resize(task.micro_batches.size());
    outcome_.outputs.resize(task.micro_batches.size());
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
    const StepActions actions = sorted_actions(step);
    const bool reduces_by_layer = actions.reduce && actions.backward;
    StepRuns runs;
    if (actions.forward) {
      runs.forward = &begin_forward(*actions.forward);
      runs.on_outputs = [&](std::vector<Value> outputs) {
        put(*actions.forward, std::move(outputs));
      };
    }
    if (actions.backward) {
      runs.backward = &begin_backward(*actions.backward, reduces_by_layer);
      runs.on_d_inputs = [&](std::vector<at::Tensor> d_inputs) {
        put(*actions.backward, values_of(std::move(d_inputs)));
      };
    }
    const auto program = [](ChunkRun* run) { return run != nullptr ? &run->program() : nullptr; };
    run_instructions(step_instructions(step, program(runs.forward), program(runs.backward)), runs,
                     make_filler(actions.weights));
    if (actions.forward) end_forward(*actions.forward);
    if (actions.backward && actions.backward->kind == ActionKind::kBackward) {
      free(*actions.backward);
    }
    if (actions.weights && actions.weights->part != Part::kFirstHalf) free(*actions.weights);
    if (actions.reduce && !reduces_by_layer) reduce(actions.reduce->chunk);
  }

  Chunk& chunk_of(const Action& action) { return chunks_.at(static_cast<size_t>(action.chunk)); }
  const MicroBatch& micro_batch_of(const Action& action) const {
    return task_.micro_batches[static_cast<size_t>(action.micro_batch)];
  }
  ChunkRun& held_of(const Action& action) { return held_.at({action.chunk, action.micro_batch}); }

  TraceTarget trace_of(const Action& action) const {
    return {task_.trace, {action.chunk, action.micro_batch, 0}};
  }

  ChunkRun& begin_forward(const Action& action) {
    WalkSettings settings{.with_grad = task_.with_grad, .trace = trace_of(action)};
    if (action.micro_batch == 0) {
      settings.before_forward = task_.before_forward;
      if (meter_) {
        settings.meter = &*meter_;
        memory_before_ = meter_->measure();
      }
    }
    const auto [place, is_new] = held_.try_emplace({action.chunk, action.micro_batch},
                                                   chunk_of(action), micro_batch_of(action));
    MT_CHECK(is_new, "a micro-batch's forward runs twice in a chunk");
    place->second.begin_forward(take(action), std::move(settings));
    return place->second;
  }

  ChunkRun& begin_backward(const Action& action, bool reduces_by_layer) {
    WalkSettings settings{.defers_weights = action.kind == ActionKind::kBackwardInput,
                          .trace = trace_of(action)};
    if (reduces_by_layer) settings.layer_done = task_.layer_done;
    ChunkRun& run = held_of(action);
    run.begin_backward(take_gradients(action), std::move(settings));
    return run;
  }

  Filler make_filler(const std::optional<Action>& weights) {
    if (!weights) return {};
    WeightGradQueue& tasks = held_of(*weights).weight_grads();
    const bool is_half = weights->part == Part::kFirstHalf;
    return {tasks, is_half ? (tasks.size() + 1) / 2 : tasks.size(), trace_of(*weights)};
  }

  // What the stage before or behind has for this action; nothing at the ends.
  std::vector<Value> take(const Action& action) {
    const auto message = needed_by(schedule_.placement, links_.rank(), action);
    if (!message) return {};
    if (sender(schedule_.placement, *message) == links_.rank()) return take_own(*message);
    std::vector<Value> received = inbox_.take(*message);
    if (task_.trace != nullptr) step_begin_ = steady_seconds();
    return received;
  }
  std::vector<at::Tensor> take_gradients(const Action& action) {
    std::vector<at::Tensor> gradients;
    for (Value& value : take(action)) gradients.push_back(std::move(value.data));
    return gradients;
  }
  std::vector<Value> take_own(const Message& message) {
    const auto own = own_messages_.find({message.from_stage, message.micro_batch});
    MT_CHECK(own != own_messages_.end(), "a chunk's result is asked for before it is there");
    std::vector<Value> taken = std::move(own->second);
    own_messages_.erase(own);
    return taken;
  }

  void put(const Action& action, std::vector<Value> values) {
    const auto message = made_by(schedule_.placement, links_.rank(), action);
    if (!message) {
      const bool is_asked = !micro_batch_of(action).labels.defined();
      if (is_asked) outcome_.outputs[static_cast<size_t>(action.micro_batch)] = std::move(values);
      return;
    }
    if (receiver(schedule_.placement, *message) == links_.rank()) {
      own_messages_[{message->from_stage, message->micro_batch}] = std::move(values);
    } else {
      complete(*message, values);
      links_.send(*message, values);
    }
  }

  const HandedOn& slots_of(const Message& message) const {
    return borders_[static_cast<size_t>(message.from_stage - (message.is_forward ? 0 : 1))];
  }
  int64_t rows_of(const Message& message) const {
    return task_.micro_batches[static_cast<size_t>(message.micro_batch)].layout.slice_size();
  }
  // What it is received into.
  std::vector<Value> empty_message(const Message& message) const {
    std::vector<Value> values;
    for (const SlotShape& slot : slots_of(message)) {
      values.push_back({.data = empty_slot(slot, rows_of(message), links_.device())});
    }
    return values;
  }
  // The receiver waits for all of it: a gradient that nobody had a part in is zero.
  void complete(const Message& message, std::vector<Value>& values) const {
    const HandedOn& slots = slots_of(message);
    const int64_t rows = rows_of(message);
    MT_CHECK(values.size() == slots.size(), "a message of ", values.size(), " slots instead of ",
             slots.size());
    for (size_t i = 0; i < values.size(); ++i) {
      at::Tensor& data = values[i].data;
      const at::ScalarType type = scalar_type(slots[i].dtype);
      if (!data.defined() && !message.is_forward)
        data = empty_slot(slots[i], rows, links_.device()).zero_();
      MT_CHECK(!values[i].scales.defined(), "slot ", i, " of stage ", message.from_stage,
               " has scales, which no border describes");
      MT_CHECK(data.defined() && data.sizes().vec() == std::vector({rows, slots[i].width}) &&
                   data.scalar_type() == type,
               "slot ", i, " of stage ", message.from_stage, " is not [", rows, ", ",
               slots[i].width, "] of type ", type);
    }
  }

  void end_forward(const Action& action) {
    ChunkRun& run = held_of(action);
    const auto micro_batch = static_cast<size_t>(action.micro_batch);
    outcome_.aux_losses[static_cast<size_t>(action.chunk)][micro_batch] = run.aux_losses();
    if (run.label_loss().defined()) outcome_.losses[micro_batch] = loss_of(action, run);
    if (meter_ && action.micro_batch == 0) {
      add_growth(outcome_.activation_memory, memory_before_, meter_->measure());
    }
    if (!task_.with_grad) free(action);
  }

  at::Tensor loss_of(const Action& action, ChunkRun& run) {
    if (!micro_batch_of(action).wants_log_probabilities) return run.label_loss();
    MT_CHECK(task_.late_loss,
             "a micro-batch's loss is to be made of log-probabilities, but not how");
    LateLoss late = task_.late_loss(action.micro_batch, run.label_loss());
    run.set_d_label_loss(std::move(late.d_log_probabilities));
    return std::move(late.loss);
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
  const StageBorders& borders_;
  Inbox inbox_;
  // From F to W, by chunk and micro-batch.
  std::map<std::pair<int, int>, ChunkRun> held_;
  // By sending stage and micro-batch.
  std::map<std::pair<int, int>, std::vector<Value>> own_messages_;
  PipelineOutcome outcome_;
  std::optional<MemoryMeter> meter_;
  ActivationMemory memory_before_;
  double step_begin_ = 0;  // of the trace
};

PipelineExecutor::PipelineExecutor(std::vector<Chunk>& chunks, StageLinks& links,
                                   StageBorders borders)
    : chunks_(chunks), links_(links), borders_(std::move(borders)) {
  const Placement& placement = links.placement();
  const auto num_borders = static_cast<size_t>(placement.num_stages() - 1);
  MT_CHECK(borders_.size() == num_borders, borders_.size(), " borders of ", placement.num_stages(),
           " stages");
  for (size_t chunk = 0; chunk < chunks.size(); ++chunk) {
    if (chunks[chunk].layers.empty()) continue;
    const auto stage = static_cast<size_t>(placement.stage(links.rank(), static_cast<int>(chunk)));
    const LayerProgram& first = chunks[chunk].layers.front()->program();
    const LayerProgram& last = chunks[chunk].layers.back()->program();
    if (stage > 0) check_handed_on(borders_[stage - 1], first, first.inputs());
    if (stage < num_borders) check_handed_on(borders_[stage], last, last.outputs());
  }
}

PipelineOutcome PipelineExecutor::run(const PipelinePlan& plan, const PipelineTask& task) {
  const Schedule& schedule = plan.schedule;
  MT_CHECK(task.micro_batches.size() == static_cast<size_t>(schedule.num_micro_batches),
           "a schedule of ", schedule.num_micro_batches, " micro-batches is given ",
           task.micro_batches.size());
  return Run(*this, plan, task).run();
}

}  // namespace moetron
