#include "moetron/cli/dry_run.h"

#include <cstdio>
#include <filesystem>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/cli/nearest_fit.h"
#include "moetron/data/blend.h"
#include "moetron/plan/dry_run_report.h"
#include "moetron/run/resolve.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/train/start.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// What the run would find where it begins, as far as it is on this machine.
struct Findings {
  RunFacts facts;
  std::string absent;   // "data-path data/pages, load model"
  std::string assumed;  // instead of it

  void miss(const std::string& option, const std::string& place) {
    absent += concat(absent.empty() ? "" : ", ", option, " ", place);
  }
};

// The newest checkpoint of --save, or of --load, or --load itself. What is not there is taken out
// of the options: they are then those of a fresh model.
void find_model(Options& options, Findings& found) {
  const fs::path load = options.checkpoint.load;
  for (const fs::path& folder : {fs::path(options.checkpoint.save), load}) {
    const std::vector<int64_t> steps = folder.empty() ? std::vector<int64_t>{} : list_steps(folder);
    if (steps.empty()) continue;
    found.facts.model_folder = checkpoint_folder(folder, steps.front());
    return;
  }
  if (load.empty()) return;
  if (!path_exists(load)) {
    found.miss("load", load.string());
    options.checkpoint.load.clear();
    return;
  }
  MT_CHECK_INPUT(path_exists(load / kConfigFile), "load: ", load.string(),
                 " holds neither a config.json nor a checkpoint");
  found.facts.model_folder = load;
}

// Of the releases: DeepSeek-V3, Qwen3, Llama 3.
RunFacts::Vocabulary released_vocabulary(ModelFamily family) {
  switch (family) {
    case ModelFamily::kDeepseek:
      return {.size = 128815, .base_size = 128000};
    case ModelFamily::kQwen:
      return {.size = 151669, .base_size = 151643};
    case ModelFamily::kLlama:
      return {.size = 128256, .base_size = 128000};
  }
  throw InternalError("a family without a release");
}

void find_vocabulary(const Options& options, Findings& found) {
  const TokenizerSpec spec{options.tokenizer.tokenizer, options.tokenizer.tokenizer_model};
  if (spec.folder.empty() || path_exists(spec.folder)) {
    if (const auto tokenizer = open_tokenizer(spec))
      found.facts.tokenizer = {tokenizer->vocab_size(), tokenizer->base_vocab_size()};
    return;
  }
  found.miss("tokenizer-model", spec.folder);
  const bool is_known = options.model.vocab_size || !found.facts.model_folder.empty();
  if (is_known || !options.model.model_family) return;
  found.facts.tokenizer = released_vocabulary(*options.model.model_family);
  found.assumed = concat("; the tokenizer is taken for the family's released one of ",
                         found.facts.tokenizer->size, " tokens");
}

void find_data(const Options& options, Findings& found) {
  for (const std::string& prefix : parse_blend(options.data.data_path).prefixes)
    if (!path_exists(prefix + ".bin")) found.miss("data-path", prefix);
}

}  // namespace

void run_dry_run(Options options, int64_t world_size) {
  Findings found{
      .facts = {.world_size = world_size, .is_on_gpu = options.runtime.device != DeviceKind::kCpu}};
  find_model(options, found);
  validate(options, Command::kPretrain, world_size);
  find_vocabulary(options, found);
  find_data(options, found);
  const std::string& file = options.runtime.hardware;
  const Hardware hardware = file.empty() ? built_in_hardware() : read_hardware(file);
  const RunSpec spec = resolve_run(options, found.facts);
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
