// The six results that the guide publishes, on 64 H100 with 4096 sequences of 4096 tokens a step,
// and the options of `moetron simulate` that describe each. For tests, and the page that they
// compare.
#pragma once

#include <string>

namespace moetron {

struct PublishedRow {
  std::string name;
  std::string options;           // of plan_test_data.h's qwen_options()
  double tokens_per_second = 0;  // of a GPU
  double tflops = 0;
};

inline const std::string kEp8 = "--num-layers 22 --expert-model-parallel-size 8";
inline const std::string kEp16 = "--num-layers 30 --expert-model-parallel-size 16";
inline const std::string kQwenStages = " --hetero-pipeline-stages ";
inline const std::string kQwenDualPipeV =
    " --scheduler dualpipev --moe-token-dispatcher-type overlap_allgather_fused "
    "--virtual-hetero-pipeline-stages ";

inline const PublishedRow kQwenRows[] = {
    {"EP8, 1f1b, 5 6 6 5", kEp8 + kQwenStages + "5 6 6 5", 7392.604, 226.1},
    {"EP8, dualpipev", kEp8 + kQwenDualPipeV + "2 3 3 3 2 3 3 3", 10233.981, 313.0},
    {"EP16, 1f1b, 7 8 8 7", kEp16 + kQwenStages + "7 8 8 7", 5224.775, 210.8},
    {"EP16, dualpipev", kEp16 + kQwenDualPipeV + "3 4 4 4 3 4 4 4", 7535.244, 304.2}};
// Eight numbers for four stages under 1f1b: two virtual stages a rank.
inline const std::string kInterleavedReading = kEp8 + kQwenStages + "2 3 3 3 2 3 3 3";

// Of deepseek_options(), without how tokens travel and how many layers are dense.
inline const std::string kDeepseekPlain = "--hetero-pipeline-stages 4 3";
inline const std::string kDeepseekDualPipeV =
    "--scheduler dualpipev --virtual-hetero-pipeline-stages 2 2 1 2 "
    "--moe-token-dispatcher-type overlap_deepep";
inline constexpr double kDeepseekPlainSpeed = 7183, kDeepseekDualPipeVSpeed = 10469.135;

// In per cent.
inline double gain(double fast, double slow) {
  return 100 * (fast / slow - 1);
}

}  // namespace moetron
