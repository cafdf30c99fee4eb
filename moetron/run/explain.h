// What somebody's command line for Megatron does here, option by option.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "moetron/config/options.h"
#include "moetron/run/resolve.h"
#include "moetron/run/run_spec.h"
#include "moetron/run/training_command.h"

namespace moetron {

struct ExplainedOption {
  std::string text;  // as it was written, with its values
  std::string note;  // what differs, why it does nothing, what is missing; empty: nothing to say
  std::string condition;  // the test of the script that it depends on; empty: it is always given
};

struct Explanation {
  std::optional<int64_t> num_ranks;      // empty: it is open
  std::vector<ExplainedOption> same;     // as in Megatron
  std::vector<ExplainedOption> other;    // another effect here
  std::vector<ExplainedOption> added;    // what Megatron does without being asked
  std::vector<ExplainedOption> idle;     // no effect here
  std::vector<ExplainedOption> missing;  // not there yet, Megatron's defaults among them
  std::vector<ExplainedOption> unknown;
  std::vector<std::string> contradictions;  // what a start would refuse, a sentence each
  std::vector<std::string> open;            // names of what the script does not say
  std::vector<std::string> command;         // ours, the program and its words
  std::vector<std::string> open_words;      // of it, where something is for the shell to expand
  // Of it; empty where anything stands in its way. It is what `run_options` and `facts` resolve to.
  std::optional<RunSpec> run;
  Options run_options;
  RunFacts facts;
  std::optional<int64_t> assumed_vocabulary;  // tokens of the run's, where nobody says them
};

// What is to be known of the model in --load, a folder that is there; of `facts` it fills what it
// finds.
using ModelFinder = std::function<void(const Options& options, RunFacts& facts)>;

// `num_ranks`: where the launcher does not say it.
Explanation explain(const TrainingCommand& command, std::optional<int64_t> num_ranks,
                    const ModelFinder& find_model);

// One sentence on how much stands between the command line and a run; empty: nothing.
std::string obstacles(const Explanation& explanation);

}  // namespace moetron
