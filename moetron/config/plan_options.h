// Options of `moetron plan`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace moetron {

// Beside what is searched, which are the options of a run: those on the command line are kept.
struct PlanOptions {
  std::string write;                                      // TOML file of the best layout
  std::optional<double> memory_limit;                     // GiB of a GPU; else all that it has
  std::optional<int64_t> max_tensor_model_parallel_size;  // of both, dense layers' and experts'
  std::optional<int64_t> max_pipeline_model_parallel_size;
  std::optional<int64_t> max_expert_model_parallel_size;
  std::optional<int64_t> max_micro_batch_size;
  bool calibrate = false;  // instead of the search, this machine is measured for a hardware file
  std::string out;         // the file; empty: the name in lower case, with ".toml"
  std::string name;        // of the machine; empty: its device's
  double calibrate_seconds = 0.3;  // of each of the operations that are measured
};

}  // namespace moetron
