#include "moetron/train/pretrain.h"

#include <chrono>
#include <cstdlib>
#include <optional>
#include <utility>

#include "moetron/arch/flops.h"
#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/seconds_since.h"
#include "moetron/checkpoint/background_writer.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/save_lock.h"
#include "moetron/comm/communicator.h"
#include "moetron/measure/device_memory.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"
#include "moetron/run/resolve.h"
#include "moetron/train/answer_sampling.h"
#include "moetron/train/carried_layers.h"
#include "moetron/train/conversations.h"
#include "moetron/train/datasets.h"
#include "moetron/train/first_weights.h"
#include "moetron/train/model_files.h"
#include "moetron/train/out_of_memory.h"
#include "moetron/train/reference.h"
#include "moetron/train/resume.h"
#include "moetron/train/run_log.h"
#include "moetron/train/run_saves.h"
#include "moetron/train/run_settings.h"
#include "moetron/train/run_summary.h"
#include "moetron/train/same_start.h"
#include "moetron/train/start.h"
#include "moetron/train/start_files.h"
#include "moetron/train/step_profile.h"
#include "moetron/train/stop.h"
#include "moetron/train/train_step.h"

namespace moetron {
namespace {

using Clock = std::chrono::steady_clock;

// A run on one rank: everything that lives from the first step to the last.
class Pretraining {
 public:
  // `owns_save`: no other run can be at work in the save folder. Rank 0's word counts. `writer`:
  // null where training waits for every save. `conversations`, `sampling`: null on token files.
  Pretraining(const RunSpec& spec, RunStart start, const ResumedRun& begin, Json files,
              const Conversations* conversations, const AnswerSampling* sampling, bool owns_save,
              BackgroundWriter* writer, Mesh& mesh, c10::Device device)
      : spec_(spec),
        mesh_(mesh),
        world_(mesh.world()),
        start_(std::move(start)),
        files_(std::move(files)),
        counts_(begin.samples),
        model_(spec.model, model_settings(spec, mesh_, device)),
        train_step_(model_, mesh_, train_settings(spec)),
        batches_(batch_settings(spec, device)),
        profile_(spec.log, mesh, device),
        stop_(spec.start.save) {
    step_ = begin.step;
    consumed_samples_ = begin.consumed_samples;
    // What cannot be written is known before data is looked at, which takes longer.
    if (step_ < spec.steps.train) prepare_saves(owns_save, writer);
    open_log();
    const int64_t first = begin.consumed_samples - counts_.begin;
    datasets_ = conversations != nullptr
                    ? conversations->datasets(spec, counts_, first)
                    : open_datasets(spec, counts_, first, start_.tokenizer.get(), world_);
    const auto count = static_cast<size_t>(spec.batch.num_micro_batches);
    train_step_.plan(count);  // every list that the run will use is proved here
    if (datasets_.validation != nullptr) train_step_.evaluation_plan(count);
    load(begin);
    if (sampling != nullptr && spec.steps.sample_interval > 0)
      sampler_ = sampling->make(model_, mesh_, spec, *start_.tokenizer, sampling->questions);
    log_->say(summarize_run(spec, model_, train_step_.optimizer(), datasets_.description, step_));
    if (saves_) log_->say("saves     " + saves_->description());
    if (!datasets_.sample.empty()) log_->say(datasets_.sample);
  }

  int run() {
    if (step_ >= spec_.steps.train) {
      log_->say(
          concat("nothing is left to do: step ", step_, " of ", spec_.steps.train, " is done"));
    }
    const int64_t first_step = step_ + 1;
    while (step_ < spec_.steps.train) {
      StepRecord record = one_step();
      log_->show(record);
      if (step_ == first_step) log_->say(describe(*record.activation_memory));
      const StopReason reason = end_step(record);
      if (reason == StopReason::kDataFailed) end_without_data();
      const bool stops = reason == StopReason::kAsked;
      if (stops && world_.rank() == 0) stop_.clear_file();
      if (step_ == spec_.steps.train) break;
      if (stops) return stopped();
      if (leaves(reason)) {
        log_->say(
            concat(reason == StopReason::kTimeIsUp ? "exit-duration-in-mins" : "exit-interval",
                   ": left after step ", step_));
        break;
      }
    }
    log_->finish();
    return kExitDone;
  }

 private:
  bool leaves(StopReason reason) const {
    return reason != StopReason::kNone || is_multiple(step_, spec_.steps.exit_interval);
  }

  // Agrees on how the run goes on and saves where that is due. What is known of the step is written
  // down when it is known of its save, too, and in any case.
  StopReason end_step(StepRecord& record) {
    std::exception_ptr failure;
    StopReason reason = StopReason::kNone;
    try {
      reason = agree_on_stop();
      const bool is_last = leaves(reason) || step_ == spec_.steps.train;
      if (is_last || is_multiple(step_, spec_.steps.save_interval)) save(is_last);
    } catch (...) {
      failure = std::current_exception();
    }
    if (saves_) record.saves = saves_->take_records();
    log_->write(record);
    if (failure != nullptr) std::rethrow_exception(failure);
    return reason;
  }

  void load(const ResumedRun& begin) {
    if (!start_.resume)
      load_first_weights(start_, static_cast<uint64_t>(spec_.seed), model_, world_);
    refer();
    if (!start_.resume) return train_step_.optimizer().reset_masters();
    load_base(start_, model_, world_);
    continue_from(start_.resume->folder, begin);
  }

  // Before a sample is asked for. A run begins as the reference; continued, it lends its model.
  void refer() {
    if (datasets_.references == nullptr) return;
    datasets_.description += datasets_.references->prepare(
        {files_.at("reference"), spec_, batches_, !start_.resume, model_, train_step_, world_});
  }

  // What a checkpoint holds of the model.
  std::vector<NamedSlice> saved_weights() const {
    return spec_.lora ? model_.adapter_weights() : model_.weights();
  }

  void continue_from(const std::filesystem::path& folder, const ResumedRun& begin) {
    if (begin.has_optimizer && spec_.start.load_optimizer) {
      load_checkpoint(folder, saved_weights(), train_step_.optimizer().states(), &world_);
      train_step_.set_optimizer_steps(begin.optimizer_steps);
      return;
    }
    load_checkpoint(folder, saved_weights(), {}, &world_);
    train_step_.optimizer().reset_masters();
    log_info(concat("the optimizer begins anew (",
                    begin.has_optimizer ? "no-load-optim" : "no-save-optim",
                    "): the losses will differ from an uninterrupted run's"));
  }

  // Rank 0 opens the files, which it may not be able to: then all end.
  void open_log() {
    const auto open = [this] {
      log_.emplace(spec_.log, spec_.steps.train, world_.rank() == 0, step_);
      return 0;
    };
    on_rank_zero(&world_, open);
    if (!log_) open();
  }

  StepRecord one_step() {
    const auto begin = Clock::now();
    const PhaseScope phase(world_, concat("step ", step_ + 1));
    const StepBatch batch = next_batch();
    const double lr = learning_rate(spec_.lr, step_);
    PipelineTrace* trace = profile_.begin(step_ + 1);
    train_step_.set_trace(trace, /*measures_memory=*/!profile_.records_gpu());
    const bool with_receipt = is_multiple(step_ + 1, spec_.log.hash_steps);
    const StepResult result = train_step_.run(batch, step_ + 1, lr, with_receipt);
    ++step_;
    const auto profile = profile_.end(step_, train_step_.plan(batch.micro_batches.size()).schedule);
    if (!profile.empty()) log_->say(profile);
    consumed_samples_ += batches_.global_batch_size;

    StepRecord record = record_of(result);
    record.step = step_;
    record.seconds = seconds_since(begin);
    record.lr = lr;
    const double tokens = static_cast<double>(batch.num_tokens) / world_.size();
    record.tokens_per_second = tokens / record.seconds;
    const double flops = flops_per_token(spec_.model, batch.mean_length());
    record.tflops_per_second = record.tokens_per_second * flops / 1e12;
    record.memory_bytes = peak_memory_bytes(model_.options().device());
    record.consumed_samples = consumed_samples_;
    maybe_evaluate(record);
    maybe_sample(record);
    return record;
  }

  // The counts of the batch behind it are summed while this one's step runs.
  StepBatch next_batch() {
    const auto begin = [this](int64_t consumed) {
      next_.emplace(*datasets_.train, consumed - counts_.begin, batches_, mesh_,
                    /*training=*/true);
    };
    if (!next_) {
      begin(consumed_samples_);
      tell_data_failure();
    }
    PendingStepBatch mine = *std::exchange(next_, std::nullopt);
    const bool is_last = step_ + 1 == spec_.steps.train;
    if (!is_last) begin(consumed_samples_ + batches_.global_batch_size);
    return mine.finish();
  }

  void maybe_evaluate(StepRecord& record) {
    if (datasets_.validation == nullptr || spec_.steps.eval == 0) return;
    const bool last = step_ == spec_.steps.train;
    if (!last && step_ % spec_.steps.eval_interval != 0) return;
    try {
      const auto found = train_step_.evaluate(*datasets_.validation, spec_.steps.eval, batches_);
      record.validation_loss = found.loss;
      record.validation_rewards = found.rewards;
    } catch (const InputError&) {  // the step before it is worth a save
      evaluation_failure_ = std::current_exception();
    }
  }

  void maybe_sample(StepRecord& record) {
    if (sampler_ == nullptr || !is_multiple(step_, spec_.steps.sample_interval)) return;
    const PhaseScope phase(world_, concat("sample answers after step ", step_));
    train_step_.wait_values();
    record.samples = sampler_->answer();
  }

  StopReason agree_on_stop() {
    const PhaseScope phase(world_, concat("step ", step_, ", agreeing on a stop"));
    const double most = spec_.steps.exit_after;
    auto saves = saves_ ? saves_->progress() : RunSaves::Progress{};
    const StopReason reason = stop_.agreed(world_, data_failure() != nullptr,
                                           most > 0 && seconds_since(begin_) > most, saves);
    if (saves_) saves_->take_progress(saves);
    return reason;
  }

  // Why this rank cannot go on; null: it can.
  std::exception_ptr data_failure() const {
    return evaluation_failure_ != nullptr || !next_ ? evaluation_failure_ : next_->failure();
  }

  // Every rank throws what the lowest of those has that cannot go on.
  void tell_data_failure() {
    on_all_ranks(&world_, [this] {
      if (const std::exception_ptr failure = data_failure()) std::rethrow_exception(failure);
      return 0;
    });
  }

  [[noreturn]] void end_without_data() {
    log_->finish();
    tell_data_failure();
    throw InternalError("data failed on no rank");
  }

  void add_tensors(CheckpointContent& content) {
    content.is_adapter = spec_.lora.has_value();
    content.weights = saved_weights();
    const std::vector<NamedSlice>& carried = carried_.slices();
    content.weights.insert(content.weights.end(), carried.begin(), carried.end());
    if (spec_.start.save_optimizer) content.states = train_step_.optimizer().states();
  }

  void prepare_saves(bool owns_save, BackgroundWriter* writer) {
    if (spec_.start.save.empty()) return;
    const PhaseScope phase(world_, "looking at the save folder");
    carried_ = carry_layers(start_, spec_, world_);
    CheckpointContent content;
    add_tensors(content);
    saves_.emplace(spec_.start, spec_.save, content, owns_save, world_, writer,
                   [this](const std::string& line) { log_->say(line); });
    on_rank_zero(&world_, [&] {
      model_files_ = spec_.lora ? collect_tokenizer_files(start_) : collect_model_files(start_);
      return 0;
    });
    train_step_.set_before_update([this] { saves_->hold_changes(); });
  }

  void save(bool is_last) {
    if (!saves_) return;
    const PhaseScope phase(world_, concat("saving step ", step_));
    saves_->save(
        step_, [this] { return checkpoint_content(); }, is_last);
  }

  CheckpointContent checkpoint_content() {
    train_step_.wait_values();
    CheckpointContent content;
    const char* dtype = model_.options().dtype() == at::kFloat ? "float32" : "bfloat16";
    content.config =
        spec_.lora ? adapter_config_text(spec_, start_)
                   : model_config_text(with_carried(spec_.model, carried_), dtype, model_files_);
    content.companions = model_files_;
    add_tensors(content);
    content.trainer = trainer_text({.step = step_,
                                    .consumed_samples = consumed_samples_,
                                    .optimizer_steps = train_step_.optimizer_steps(),
                                    .has_optimizer = spec_.start.save_optimizer},
                                   spec_, counts_, files_, world_.size());
    return content;
  }

  int stopped() {
    log_->say(concat("stopped on request after step ", step_,
                     spec_.start.save.empty() ? "" : "; the same command continues"));
    log_->finish();
    // torchrun takes any other code for a fault and would end or restart the group.
    return std::getenv("TORCHELASTIC_RUN_ID") != nullptr ? kExitDone : kExitStopped;
  }

  const RunSpec& spec_;
  Mesh& mesh_;
  Communicator& world_;
  RunStart start_;
  const Json files_;  // that the run reads, for the checkpoint
  const SampleCounts counts_;
  Model model_;
  TrainStep train_step_;
  std::optional<RunLog> log_;
  TrainingData datasets_;
  BatchSettings batches_;
  std::unique_ptr<AnswerSampler> sampler_;  // null where none is asked for
  std::optional<PendingStepBatch> next_;
  std::exception_ptr evaluation_failure_;
  StepProfile profile_;
  StopRequest stop_;
  CarriedTensors carried_;                  // of every checkpoint; empty without --save
  std::optional<RunSaves> saves_;           // none without --save, and where no step is left to do
  std::vector<CompanionFile> model_files_;  // on rank 0, of every checkpoint
  const Clock::time_point begin_ = Clock::now();
  int64_t step_ = 0;
  int64_t consumed_samples_ = 0;
};

}  // namespace

int pretrain(const Options& given, Communicator& world, c10::Device device,
             AnswerSampling* sampling) {
  const StartSpec start_spec = resolve_start(given);
  std::optional<SaveLock> lock;  // on rank 0, before anything in --save is read
  on_rank_zero(&world, [&] {
    if (!start_spec.save.empty()) lock.emplace(start_spec.save);
    return 0;
  });
  RunStart start = find_start(start_spec, world);
  const auto conversations = open_conversations(given, start, &world, world.size());
  const Options& options = conversations ? conversations->options() : given;
  if (conversations) conversations->introduce(sampling != nullptr ? &sampling->questions : nullptr);
  const Json files =
      describe_files(start, start_spec, resolve_data(options), conversations.get(), world);
  check_same_files(files, world);
  RunFacts facts{.world_size = world.size()};
  tell_model(start, facts);
  facts.kept_options = kept_options(start, start_spec, world);
  const RunSpec spec = resolve_run(options, facts);
  if (device.is_cpu()) check_host_memory(spec, host_memory_bytes());
  for (const std::string& remark : spec.remarks) log_info(remark);
  ResumedRun begin{.samples = sample_counts(spec)};
  check_tuning(start, spec, world);
  if (start.resume) begin = take_up(start, spec, files, world);
  Mesh mesh(world, spec.sizes, head_copies(spec.sizes, spec.model), spec.lora.has_value());
  // Outlives what fails below: others hear of that before a write under way is waited for.
  std::optional<BackgroundWriter> writer;
  if (spec.save.in_background && !spec.start.save.empty()) writer.emplace(world);
  try {
    const bool owns_save = lock && lock->is_held();
    return Pretraining(spec, std::move(start), begin, files, conversations.get(), sampling,
                       owns_save, writer ? &*writer : nullptr, mesh, device)
        .run();
  } catch (const CommError&) {
    throw;
  } catch (const std::exception& error) {
    // While the groups are there: peers would take closed connections for the cause.
    const auto memory = describe_out_of_memory(error);
    world.abort(memory.value_or(first_line(error)));
    if (memory) throw ConfigError(*memory);
    throw;
  }
}

}  // namespace moetron
