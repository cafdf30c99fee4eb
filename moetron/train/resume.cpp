#include "moetron/train/resume.h"

#include <algorithm>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/trainer_state.h"
#include "moetron/comm/communicator.h"
#include "moetron/run/changed_options.h"

namespace moetron {
namespace {

using Changes = std::vector<ChangedOption>;

bool is_data(const std::string& name) {
  return name.starts_with("data-path");
}

std::string spelled(const Json& files, const std::string& name) {
  if (!files.contains(name)) return "-";
  const Json& file = files.at(name);
  return concat(file.at("place").get<std::string>(), ": ", file.at("content").get<std::string>());
}

// Data and tokenizer are compared by their content, wherever they lie.
// So is the model that low-rank updates are for.
Changes changed_files(const Json& before, const Json& now, bool needs_model) {
  std::vector<std::string> names;
  for (const Json* files : {&before, &now})
    for (const auto& [name, file] : files->items()) names.push_back(name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  Changes changes;
  for (const std::string& name : names) {
    const bool is_needed_model = needs_model && name == "model";
    if (!is_data(name) && name != "tokenizer-model" && !is_needed_model) continue;
    const bool is_same = before.contains(name) && now.contains(name) &&
                         before.at(name).at("content") == now.at(name).at("content");
    if (is_same) continue;
    const std::string option = is_needed_model ? "base" : is_data(name) ? "data-path" : name;
    changes.push_back({option, spelled(before, name), spelled(now, name),
                       /*decides_training=*/true});
  }
  return changes;
}

Changes find_changes(const Json& trainer, const RunSpec& spec, const Json& files) {
  Changes changes = changed_options(trainer.at("options"), spec.options);
  if (!trainer.contains("files")) return changes;  // an older one: the names must do
  for (ChangedOption& change : changes) {
    if (is_data(change.name) || change.name == "tokenizer-model") change.decides_training = false;
  }
  const Changes contents = changed_files(trainer.at("files"), files, spec.lora.has_value());
  changes.insert(changes.end(), contents.begin(), contents.end());
  return changes;
}

std::string described(const LoraConfig& lora) {
  std::string text = concat("lora-rank ", lora.rank, ", lora-alpha ", lora.alpha, ", lora-targets");
  for (const std::string& target : lora.targets) text += concat(" ", target);
  return text;
}

void check_tuning(const RunStart& start, const RunSpec& spec) {
  const std::filesystem::path from = start.resume ? start.resume->folder : start.adapter;
  if (from.empty()) return;
  if (!holds_adapter(from)) {
    MT_CHECK_CONFIG(!spec.lora, "lora-rank (", spec.lora ? spec.lora->rank : 0,
                    "): ", from.string(),
                    " continues the training of a whole model; as --load, with another "
                    "--save, it gives its weights");
    return;
  }
  const LoraConfig saved = read_adapter_config(from, spec.model).lora;
  MT_CHECK_CONFIG(spec.lora && *spec.lora == saved, from.string(), " holds low-rank updates: give ",
                  described(saved), spec.lora ? concat(", not ", described(*spec.lora)) : "");
}

void refuse_unwanted(const Changes& changes, const RunSpec& spec, int64_t step) {
  const std::vector<std::string> names = not_accepted(changes, spec.start.accepted_changes);
  if (names.empty()) return;
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ",") + name;
  throw ConfigError(concat("the run would continue at step ", step,
                           " in another way than it was begun; what is different:\n",
                           change_table(changes), "\nTo continue all the same: --accept-changes ",
                           list));
}

// What becomes of the rate of the next step, as a further row; and why, where nothing but the
// length of the run was changed.
void add_learning_rate(const Json& record, const RunSpec& spec, int64_t step, Changes& changes) {
  const auto before = recorded_learning_rate(record);
  if (!before) return;
  const double was = learning_rate(*before, step), is = learning_rate(spec.lr, step);
  if (was == is) return;
  changes.push_back({concat("learning rate of step ", step + 1), concat(was), concat(is)});
  const int64_t steps_before = recorded_number(record, "train-iters");
  const bool follows = before->decay_iters != spec.lr.decay_iters &&
                       before->decay_iters == static_cast<double>(steps_before) &&
                       spec.lr.decay_iters == static_cast<double>(spec.steps.train);
  if (!follows) return;
  log_info(concat("the decay of the learning rate ends with train-iters, now ", spec.steps.train,
                  ": lr-decay-iters ", steps_before, " would keep it as it was"));
}

// Whether samples come in another order from here on.
bool begins_new_order(const Changes& changes) {
  return std::any_of(changes.begin(), changes.end(), [](const ChangedOption& change) {
    const std::string& name = change.name;
    return change.decides_training &&
           (is_data(name) || name == "split" || name == "seed" || name == "seq-length");
  });
}

bool are_counts(const Json& samples, const char* key) {
  const Json counts = samples.value(key, Json());
  return counts.is_array() && !counts.empty() &&
         std::all_of(counts.begin(), counts.end(),
                     [](const Json& count) { return count.is_number_integer() && count >= 0; });
}

bool is_description(const Json& file) {
  return file.is_object() && file.value("place", Json()).is_string() &&
         file.value("content", Json()).is_string();
}

// What a run notes for those that continue it, beside TrainerState; an older one has less of it.
void check_notes(const Json& trainer, const std::string& path) {
  const Json& options = trainer.value("options", Json());
  MT_CHECK_INPUT(options.is_object() && std::all_of(options.begin(), options.end(),
                                                    [](const Json& g) { return g.is_object(); }),
                 path, ": options is no object of objects");
  if (trainer.contains("samples")) {
    const Json& samples = trainer.at("samples");
    MT_CHECK_INPUT(samples.is_object() && are_counts(samples, "train") &&
                       are_counts(samples, "validation") &&
                       samples.value("begin", Json()).is_number_integer(),
                   path, ": samples does not hold numbers under train, validation and begin");
  }
  if (!trainer.contains("files")) return;
  const Json& files = trainer.at("files");
  MT_CHECK_INPUT(files.is_object() && std::all_of(files.begin(), files.end(), is_description), path,
                 ": files does not tell of each its place and its content");
}

SampleCounts recorded_counts(const Json& trainer) {
  if (trainer.contains("samples")) {
    const Json& samples = trainer.at("samples");
    return {samples.at("train").get<std::vector<int64_t>>(),
            samples.at("validation").get<std::vector<int64_t>>(),
            samples.at("begin").get<int64_t>()};
  }
  const Json& options = trainer.at("options");
  const auto number = [&](const char* name) { return recorded_number(options, name); };
  const int64_t batch = number("global-batch-size"), steps = number("train-iters");
  const int64_t evaluations = steps / std::max<int64_t>(1, number("eval-interval")) + 1;
  return {{steps * batch}, {evaluations * std::max<int64_t>(0, number("eval-iters")) * batch}, 0};
}

void extend(std::vector<int64_t>& counts, int64_t needed) {
  if (counts == std::vector<int64_t>{0}) counts.clear();  // of a run that did not validate
  if (counts.empty() || needed > counts.back()) counts.push_back(needed);
}

SampleCounts continued_counts(const Json& trainer, const RunSpec& spec, const ResumedRun& run,
                              bool is_new_order) {
  const SampleCounts own = sample_counts(spec);
  const int64_t left =
      std::max<int64_t>(0, spec.steps.train - run.step) * spec.batch.global_batch_size;
  if (is_new_order) {
    log_info(concat("data: another order of samples begins with step ", run.step + 1, ", after ",
                    run.consumed_samples,
                    " samples: some that were trained on may come again before all were"));
    return {{std::max<int64_t>(1, left)}, own.validation, run.consumed_samples};
  }
  SampleCounts counts = recorded_counts(trainer);
  const int64_t before = counts.train.back();
  extend(counts.train, run.consumed_samples - counts.begin + left);
  extend(counts.validation, own.validation.back());
  if (counts.train.back() > before) {
    log_info(concat("data: the order of samples was made for ", before, ", and ",
                    counts.train.back(),
                    " are needed: it is kept to the end of its pass over the "
                    "data, and an order of its own follows for the rest, so that no sample repeats "
                    "before all were seen (Megatron would draw another order at once)"));
  }
  return counts;
}

}  // namespace

void check_tuning(const RunStart& start, const RunSpec& spec, Communicator& world) {
  on_all_ranks(&world, [&] {
    check_tuning(start, spec);
    return 0;
  });
}

std::optional<Json> kept_options(const RunStart& start, const StartSpec& spec,
                                 Communicator& world) {
  if (!spec.keeps_schedule || !start.resume) return {};
  const Json trainer = load_checkpoint(start.resume->folder, {}, {}, &world);
  check_notes(trainer, (start.resume->folder / kTrainerFile).string());
  return trainer.at("options");
}

ResumedRun take_up(const RunStart& start, const RunSpec& spec, const Json& files,
                   Communicator& world) {
  const Json trainer = load_checkpoint(start.resume->folder, {}, {}, &world);
  const std::filesystem::path path = start.resume->folder / kTrainerFile;
  const TrainerState state = parse_trainer_state(trainer, path);
  check_notes(trainer, path.string());
  ResumedRun run{.step = state.step,
                 .consumed_samples = state.consumed_samples,
                 .optimizer_steps = state.optimizer_steps,
                 .has_optimizer = state.has_optimizer};
  const int64_t is_new_order = on_rank_zero(&world, [&] {
    Changes changes = find_changes(trainer, spec, files);
    add_learning_rate(trainer.at("options"), spec, run.step, changes);
    refuse_unwanted(changes, spec, run.step);
    if (!changes.empty()) {
      log_info(concat("changed since step ", run.step, " was saved:\n", change_table(changes)));
    }
    return int64_t{begins_new_order(changes)};
  });
  run.samples = continued_counts(trainer, spec, run, is_new_order == 1);
  return run;
}

std::string trainer_text(const TrainerState& state, const RunSpec& spec,
                         const SampleCounts& samples, const Json& files, int num_ranks) {
  Json trainer = write_trainer_state(state);
  trainer["ranks"] = num_ranks;
  trainer["samples"] = {
      {"train", samples.train}, {"validation", samples.validation}, {"begin", samples.begin}};
  trainer["files"] = files;
  trainer["options"] = spec.options;
  return trainer.dump(2) + "\n";
}

}  // namespace moetron
