#include "moetron/cli/dry_run.h"

#include <cstdio>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/cli/nearest_fit.h"
#include "moetron/cli/run_findings.h"
#include "moetron/data/blend.h"
#include "moetron/plan/dry_run_report.h"
#include "moetron/run/resolve.h"
#include "moetron/run/sft_choices.h"
#include "moetron/train/conversations.h"
#include "moetron/train/start.h"

namespace moetron {
namespace {

void find_data(const Options& options, RunFindings& found) {
  if (options.data.mock_data) return;
  for (const std::string& prefix : parse_blend(options.data.data_path).prefixes)
    if (!path_exists(prefix + ".bin")) found.miss("data-path", prefix);
}

// The options that fine-tuning chooses. What is not here of its data is taken for long.
Options chosen_options(const Options& options, RunFindings& found) {
  constexpr int64_t kManySequences = 1000;
  bool is_here = !found.facts.model_folder.empty();
  for (const std::string& file : parse_blend(options.data.data_path).prefixes) {
    if (path_exists(file)) continue;
    found.miss("data-path", file);
    is_here = false;
  }
  if (is_here) {
    RunStart start;
    start.weights = found.facts.model_folder;
    const StartSpec spec = resolve_start(options);
    if (found.facts.told_model)
      start.stored = describe_stored(start.weights, spec.layers, spec.vocab_size,
                                     megatron_iteration(start.weights, spec.step));
    const TokenizerSpec named{options.tokenizer.tokenizer, options.tokenizer.tokenizer_model};
    start.tokenizer = open_tokenizer(named);
    start.tokenizer_folder = tokenizer_folder(named);
    take_tokenizer_files(start);
    const auto conversations = open_conversations(options, start, nullptr, found.facts.world_size);
    conversations->introduce(nullptr);
    return conversations->options();
  }
  SftChoices choices(options);
  choices.see_conversations({.num_conversations = kManySequences, .longest = kManySequences});
  choices.see_packs({.first_epoch = kManySequences,
                     .all_epochs = kManySequences,
                     .world_size = found.facts.world_size});
  return choices.options();
}

// What a folder that is not here would have said of the model has to come from somewhere.
void check_shape_is_told(const std::string& load, const Options& options) {
  const bool is_missing = !load.empty() && options.checkpoint.load.empty();
  MT_CHECK_INPUT(!is_missing || options.model.num_layers || options.model.hidden_size, "load (",
                 load,
                 ") is not here: without its config.json, the options must give the model's shape");
}

}  // namespace

RunSpec planned_spec(Options& options, Command command, RunFindings& found) {
  const std::string load = options.checkpoint.load;
  find_model(options, found);
  if (found.facts.model_folder.empty()) check_shape_is_told(load, options);
  validate(options, command, found.facts.world_size);
  find_vocabulary(options, found);
  if (command == Command::kSft) {
    options = chosen_options(options, found);
  } else {
    find_data(options, found);
  }
  return resolve_run(options, found.facts);
}

void run_dry_run(Options options, Command command, int64_t world_size) {
  RunFindings found{.facts = {.world_size = world_size}};
  const std::string& file = options.runtime.hardware;
  const Hardware hardware = planned_hardware(options);
  const RunSpec spec = planned_spec(options, command, found);
  check_planned_device(options, spec, hardware);
  for (const std::string& remark : spec.remarks) log_info(remark);
  if (!found.absent.empty())
    std::printf("not here  %s%s\n", found.absent.c_str(), found.assumed.c_str());
  std::printf("dry run   as on %s (%s)\n", hardware.name.c_str(),
              file.empty() ? "built in" : file.c_str());
  const DryRun run = dry_run(spec, hardware);
  std::printf("%s\n", describe(run, spec, hardware).c_str());
  std::fflush(stdout);  // the last words go elsewhere
  if (!run.fits) {
    throw ConfigError(concat(describe_overflow(run.prediction.memory, hardware), "; ",
                             nearest_fit(options, found.facts, hardware)));
  }
}

}  // namespace moetron
