// For tests/oracles/metrics_oracle.py: turns a metrics.jsonl into a TensorBoard event file and a
// picture of the losses in a folder.
#include <cstdio>
#include <filesystem>

#include "moetron/base/error.h"
#include "moetron/metrics/metrics_file.h"
#include "moetron/metrics/plot.h"
#include "moetron/metrics/tensorboard.h"

int main(int argc, char** argv) {
  using namespace moetron;
  try {
    MT_CHECK_CONFIG(argc == 3, "usage: metrics_tool METRICS_JSONL FOLDER");
    const std::filesystem::path folder = argv[2];
    const auto records = read_metrics(argv[1]);
    TensorBoardWriter writer(folder);
    for (const StepRecord& record : records) writer.write(record);
    plot_losses(records, folder / "loss.png", "Qwen3-30B-A3B, 16 layers");
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
  return kExitDone;
}
