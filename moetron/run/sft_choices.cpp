#include "moetron/run/sft_choices.h"

#include <algorithm>
#include <type_traits>

#include "moetron/base/error.h"
#include "moetron/base/flag_text.h"
#include "moetron/base/mistakes.h"
#include "moetron/config/options.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

constexpr double kFullRate = 1e-5, kUpdateRate = 1e-4;
constexpr double kPreferenceShare = 0.1;  // of these rates: as TRL's of DPO and of fine-tuning
constexpr double kWarmup = 0.03;
constexpr int64_t kShortest = 64, kLongest = 4096;  // sequences that are chosen; tokens
constexpr int64_t kFewConversations = 50;           // of which none is held out
constexpr double kEvalFraction = 0.02;
constexpr int64_t kMostSaves = 10;

int64_t up_to_multiple(int64_t value, int64_t of) {
  return (value + of - 1) / of * of;
}

int64_t divide_up(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}

bool gives(const Options& options, const std::string& name) {
  const auto& given = options.sft.given;
  return std::find(given.begin(), given.end(), name) != given.end();
}

bool prefers(const Options& options) {
  return options.sft.objective == Objective::kDpo;
}

void check_pairs(const Options& options, bool asks_packing, Mistakes& mistakes) {
  const TrainingOptions& training = options.training;
  mistakes.check(!asks_packing || !options.sft.packing,
                 "packing (true): objective (dpo) gives each answer of a pair a sequence of its "
                 "own, and does not pack");
  mistakes.check(!options.sft.truncate,
                 "truncate (true): objective (dpo) leaves out pairs that are longer than "
                 "seq-length, for a cut answer is another one");
  mistakes.check(training.micro_batch_size % 2 == 0 || !gives(options, "micro-batch-size"),
                 "micro-batch-size (", training.micro_batch_size,
                 ") counts sequences, and must be even for objective (dpo): both answers of a pair "
                 "are in one micro-batch");
  mistakes.check(training.global_batch_size % 2 == 0 || !gives(options, "global-batch-size"),
                 "global-batch-size (", training.global_batch_size,
                 ") counts sequences, and must be even for objective (dpo): two are a pair");
}

void check(const Options& options, bool gives_epochs) {
  const TrainingOptions& training = options.training;
  Mistakes mistakes;
  const bool counts_steps = training.train_iters > 0 || training.train_samples;
  mistakes.check(!gives_epochs || !counts_steps, "epochs (", options.sft.epochs,
                 ") and train-iters or train-samples both say how long the run is: give one");
  if (prefers(options)) check_pairs(options, gives(options, "packing"), mistakes);
  mistakes.throw_if_any();
}

}  // namespace

std::optional<ConversationsSpec> resolve_conversations(const Options& options) {
  const SftOptions& sft = options.sft;
  if (!sft.applies) return std::nullopt;
  return ConversationsSpec{.pairs = prefers(options),
                           .packing = sft.packing,
                           .window = sft.packing_window,
                           .truncate = sft.truncate,
                           .eval_fraction = sft.eval_fraction.value_or(0),
                           .strict = sft.strict,
                           .chat_template = sft.chat_template,
                           .last_turn_only = sft.last_turn_only,
                           .thinking = sft.thinking,
                           .allow_special_tokens_in_text = sft.allow_special_tokens_in_text};
}

bool SftChoices::is_given(const std::string& name) const {
  return gives(*options_, name);
}

template <class T>
void SftChoices::choose(const char* name, T& field, const T& value, const std::string& why) {
  if (is_given(name)) return;
  field = value;
  std::string shown;
  if constexpr (std::is_same_v<T, bool>) {
    shown = flag_text(value);
  } else if constexpr (std::is_same_v<T, LrDecayStyle>) {
    shown = "cosine";
  } else if constexpr (requires { value.value(); }) {
    shown = concat(value.value());
  } else {
    shown = concat(value);
  }
  reasons_.push_back(concat(name, " ", shown, ": ", why));
}

SftChoices::SftChoices(const Options& given) : options_(std::make_shared<Options>(given)) {
  check(given, is_given("epochs"));
  Options& o = *options_;
  const bool pairs = prefers(o), lora = o.tuning.lora_rank > 0;
  choose("packing", o.sft.packing, !pairs,
         pairs ? "each answer of a pair has a sequence of its own"
               : "several conversations share a sequence and do not see each other");
  const double rate = lora ? kUpdateRate : kFullRate;
  choose("lr", o.optimizer.lr, pairs ? kPreferenceShare * rate : rate,
         concat(lora ? "usual for low-rank updates" : "usual where all weights are tuned",
                pairs ? " by preferences" : ""));
  if (pairs && !is_given("epochs")) o.sft.epochs = 1;
  choose("lr-decay-style", o.optimizer.lr_decay_style, LrDecayStyle::kCosine,
         "the rate falls to min-lr until the last step");
  choose("micro-batch-size", o.training.micro_batch_size, int64_t{pairs ? 2 : 1},
         pairs ? "one pair; needs least memory" : "needs least memory");
}

void SftChoices::see_conversations(const ConversationFacts& facts) {
  Options& o = *options_;
  if (pads_to_its_own_length()) {
    o.training.seq_length = o.sft.max_padding_length;
  } else {
    int64_t length = kShortest;
    while (length < std::min(facts.longest, kLongest)) length *= 2;
    const int64_t most = facts.max_positions.value_or(length);
    const std::string bound =
        length > most
            ? concat("the model has ", most, " positions, and ")
            : (facts.longest > length ? concat("longer is asked for, not chosen, and ") : "");
    choose("seq-length", o.training.seq_length, std::min(length, most),
           concat(bound, "the longest of ", facts.num_conversations,
                  prefers(o) ? " answers has " : " conversations has ", facts.longest, " tokens"));
  }
  if (is_given("eval-fraction")) return;
  const int64_t records = facts.num_conversations / (prefers(o) ? 2 : 1);
  const bool are_few = records < kFewConversations;
  choose("eval-fraction", o.sft.eval_fraction, std::optional(are_few ? 0 : kEvalFraction),
         are_few ? concat("less than ", kFewConversations, prefers(o) ? " pairs" : " conversations",
                          " are all trained on")
                 : "held out, to see whether the model learns more than these texts");
}

ConversationsSpec SftChoices::conversations() const {
  return *resolve_conversations(*options_);
}

int64_t SftChoices::seq_length() const {
  return options_->training.seq_length;
}

const char* SftChoices::length_option() const {
  return pads_to_its_own_length() ? "max-padding-length" : "seq-length";
}

bool SftChoices::pads_to_its_own_length() const {
  return !options_->sft.packing && options_->sft.max_padding_length > 0;
}

int64_t SftChoices::epochs() const {
  const TrainingOptions& training = options_->training;
  const bool counts_steps = is_given("train-iters") || training.train_samples;
  return counts_steps ? 0 : options_->sft.epochs;
}

int64_t SftChoices::seed() const {
  return options_->runtime.seed;
}

// A power of two by the number of sequences, as far as ranks and the pipeline allow.
void SftChoices::choose_batch(const PackFacts& facts) {
  Options& o = *options_;
  const ParallelOptions& p = o.parallel;
  const int64_t of_record = prefers(o) ? 2 : 1;  // sequences
  int64_t wanted = of_record;
  while (wanted < 32 * of_record && 2 * wanted * 10 <= facts.first_epoch) wanted *= 2;
  const int64_t of_model =
      std::max<int64_t>(1, p.tensor_model_parallel_size * p.pipeline_model_parallel_size);
  const int64_t data_ranks = std::max<int64_t>(1, facts.world_size / of_model);
  const int64_t in_flight =
      p.pipeline_model_parallel_size > 1 ? 2 * p.pipeline_model_parallel_size : 1;
  const int64_t unit = data_ranks * in_flight * o.training.micro_batch_size;
  const int64_t batch = up_to_multiple(wanted, unit);
  choose("global-batch-size", o.training.global_batch_size, batch,
         batch > wanted ? concat("what ", facts.world_size, " ranks take at the least")
                        : concat("for ", facts.first_epoch, " sequences in an epoch"));
}

void SftChoices::choose_steps(const PackFacts& facts) {
  Options& o = *options_;
  TrainingOptions& training = o.training;
  const int64_t batch = training.global_batch_size;
  if (epochs() > 0) {
    choose("epochs", o.sft.epochs, o.sft.epochs,
           prefers(o) ? "more are soon too many for preferences"
                      : "usual for a few thousand conversations");
    training.train_iters = divide_up(facts.all_epochs, batch);
    reasons_.push_back(concat("train-iters ", training.train_iters, ": ", facts.all_epochs,
                              " sequences in ", epochs(), epochs() == 1 ? " epoch" : " epochs"));
  }
  if (training.train_samples) return;
  const int64_t steps = training.train_iters;
  const int64_t per_epoch = std::clamp<int64_t>((facts.first_epoch + batch / 2) / batch, 1, steps);
  const bool sets_warmup =
      is_given("lr-warmup-iters") || is_given("lr-warmup-samples") || is_given("lr-warmup-init");
  if (!sets_warmup && kWarmup * static_cast<double>(steps) >= 1) {
    choose("lr-warmup-fraction", o.optimizer.lr_warmup_fraction, std::optional(kWarmup),
           "Adam's averages are young at the start");
  }
  if (facts.held_out > 0) {
    choose("eval-iters", training.eval_iters, divide_up(facts.held_out, batch),
           concat("all ", facts.held_out, " sequences that are held out"));
    choose("eval-interval", training.eval_interval, per_epoch, "about once an epoch");
  } else {
    training.eval_iters = 0;
  }
  const int64_t interval = per_epoch * divide_up(divide_up(steps, per_epoch), kMostSaves);
  choose("save-interval", o.checkpoint.save_interval, interval,
         interval > per_epoch ? "ten times in the run" : "about once an epoch");
  if (!is_given("keep-every"))
    choose("keep-last", o.checkpoint.keep_last, int64_t{1}, "the newest checkpoint is kept");
  choose("log-interval", o.logging.log_interval, std::max<int64_t>(1, steps / 200),
         "at most some 200 lines");
}

std::string SftChoices::text() const {
  std::string text = "chosen, where nothing else was asked for:";
  for (const std::string& reason : reasons_) text += "\n  " + reason;
  return text;
}

// As if of one sequence where there is none: whoever holds the conversations says so.
void SftChoices::see_packs(PackFacts facts) {
  facts.first_epoch = std::max<int64_t>(facts.first_epoch, 1);
  facts.all_epochs = std::max<int64_t>(facts.all_epochs, 1);
  choose_batch(facts);
  choose_steps(facts);
}

}  // namespace moetron
