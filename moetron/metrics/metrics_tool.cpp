// For tests/oracles/metrics_oracle.py: turns a metrics.jsonl into a TensorBoard event file and a
// picture of the losses in a folder, or prints what is read from any log of a run.
#include <cstdio>
#include <filesystem>

#include "moetron/base/error.h"
#include "moetron/metrics/loss_history.h"
#include "moetron/metrics/metrics_file.h"
#include "moetron/metrics/plot.h"
#include "moetron/metrics/tensorboard.h"

namespace {

using namespace moetron;

// A run that begins with the first of the records.
void write_folder(const std::filesystem::path& metrics, const std::filesystem::path& folder) {
  const auto records = read_metrics(metrics);
  MT_CHECK_INPUT(!records.empty(), metrics.string(), " holds no record");
  TensorBoardWriter writer(folder, records.front().step - 1);
  for (const StepRecord& record : records) writer.write(record);
  plot_losses(records, folder / "loss.png", "Qwen3-30B-A3B, 16 layers");
}

void print_history(const std::filesystem::path& path, const char* metric) {
  for (const HistoryPoint& point : read_run(path, metric).history)
    std::printf("%lld %.17g\n", static_cast<long long>(point.step), point.value);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string task = argc == 4 ? argv[1] : "";
    MT_CHECK_CONFIG(task == "write" || task == "read",
                    "usage: metrics_tool write METRICS_JSONL FOLDER | read LOG METRIC");
    if (task == "write") {
      write_folder(argv[2], argv[3]);
    } else {
      print_history(argv[2], argv[3]);
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
  return kExitDone;
}
