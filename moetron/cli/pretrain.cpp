// moetron pretrain and sft: join the run's other ranks, train, and report a failure once.
#include "moetron/train/pretrain.h"

#include <csignal>
#include <cstdlib>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/dry_run.h"
#include "moetron/cli/rank_run.h"
#include "moetron/cli/sample_answers.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/run/resolve.h"
#include "moetron/train/check_layout.h"

namespace moetron {
namespace {

// Before a run, or in its place: whoever starts all of its ranks has one of them check.
int check_before_run(const ParsedCommandLine& parsed, const RankEnvironment& environment) {
  if (environment.rank != 0) return kExitDone;
  const RuntimeOptions& runtime = parsed.options.runtime;
  const int64_t num_ranks = runtime.world_size.value_or(environment.size);
  say_notices(parsed);
  Options options = parsed.options;
  if (options.sft.applies) {  // conversations that are packed are documents apart
    options.data.reset_attention_mask = options.data.reset_position_ids = true;
  }
  RunFindings found{.facts = {.world_size = num_ranks}};
  RunSpec run = planned_spec(options, parsed.command, found);
  if (!found.absent.empty()) log_info(concat("not here: ", found.absent, found.assumed));
  if (std::exchange(run.preferences, {}))
    log_info("check-layout learns labels: pairs of answers are not compared");
  run_layout_check(run);
  return kExitDone;
}

// What is planned for --world-size ranks concerns them all; a platform whose RANK and WORLD_SIZE
// count nodes is no launcher of ranks, which says LOCAL_RANK as well.
bool is_planned_for_all(const RuntimeOptions& runtime) {
  const bool is_planned = runtime.dry_run || runtime.check_layout;
  return is_planned && runtime.world_size && std::getenv("LOCAL_RANK") == nullptr &&
         std::getenv("RANK") != nullptr;
}

}  // namespace

int run_pretrain(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  std::signal(SIGPIPE, SIG_IGN);  // whoever read our lines may go: the run goes on
  const RankEnvironment environment =
      is_planned_for_all(options.runtime) ? RankEnvironment{} : read_rank_environment();
  init_log(environment.rank, environment.size);
  if (!environment.found.empty()) log_info(environment.found);
  if (options.runtime.dry_run) {
    if (environment.rank != 0) return kExitDone;
    say_notices(parsed);
    run_dry_run(options, parsed.command, options.runtime.world_size.value_or(environment.size));
    return kExitDone;
  }
  if (options.runtime.check_layout) return check_before_run(parsed, environment);
  return run_rank(parsed, environment, [&](Communicator& world, c10::Device device) {
    AnswerSampling sampling;
    sampling.make = [&](Model& model, Mesh& mesh, const RunSpec& spec, const Tokenizer& tokenizer,
                        const std::vector<SampleQuestion>& questions) {
      return sample_answers_of(model, mesh, spec, tokenizer, questions, options.sft.sample_answers);
    };
    const int code = pretrain(options, world, device, &sampling);
    if (options.sft.applies && code == kExitDone)
      show_sample_answers(options, sampling.questions, world, device);
    return code;
  });
}

}  // namespace moetron
