#include "moetron/plan/published_table_page.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/units.h"
#include "moetron/plan/layer_times.h"
#include "moetron/plan/plan_test_data.h"
#include "moetron/plan/published_rows.h"

namespace moetron {
namespace {

// "+1.3 %", of so many digits behind the point.
std::string deviation(double value, double published, int digits = 0) {
  const double shown = std::pow(10, digits);
  const double rounded = std::round(gain(value, published) * shown) / shown;
  return formatted("%+.*f %%", digits, rounded + 0.0);  // no "-0"
}

double most_held(const Prediction& prediction) {
  double most = 0;
  for (const RankMemory& rank : prediction.memory) most = std::max(most, rank.total());
  return most;
}

// Of a rank's time, the least and the most that it waits for dispatch and combine.
std::pair<double, double> waits(const Prediction& prediction) {
  const std::vector<double>& exposed = prediction.simulation.exposed;
  const auto [least, most] = std::minmax_element(exposed.begin(), exposed.end());
  return {100 * *least / prediction.step_time, 100 * *most / prediction.step_time};
}

// The larger of two deviations, in per cent, rounded up.
double bound(std::initializer_list<double> values) {
  double most = 0;
  for (const double value : values) most = std::max(most, std::abs(value));
  return std::ceil(most);
}

std::string qwen_table(const std::vector<Prediction>& predicted) {
  std::string text =
      "| row | tokens/s/GPU, published | predicted | | TFLOP/s/GPU, published | predicted | "
      "GB/GPU, "
      "predicted | fit or prediction |\n|---|---|---|---|---|---|---|---|\n";
  for (size_t i = 0; i < std::size(kQwenRows); ++i) {
    const PublishedRow& row = kQwenRows[i];
    const Prediction& now = predicted[i];
    text += formatted("| %s | %.0f | %.0f | %s | %.1f | %.1f | %.0f | fit |\n", row.name.c_str(),
                      row.tokens_per_second, now.tokens_per_second,
                      deviation(now.tokens_per_second, row.tokens_per_second, 1).c_str(),
                      row.tflops, now.flops_per_second / kTera, most_held(now) / kGiga);
  }
  for (const auto& [name, plain, fast] :
       {std::tuple("gain at EP8", 0U, 1U), {"gain at EP16", 2U, 3U}}) {
    text += formatted("| %s | %.1f %% | %.1f %% | | | | | fit |\n", name,
                      gain(kQwenRows[fast].tokens_per_second, kQwenRows[plain].tokens_per_second),
                      gain(predicted[fast].tokens_per_second, predicted[plain].tokens_per_second));
  }
  return text;
}

double qwen_speed(const std::string& options) {
  return predict(qwen_options(options)).tokens_per_second;
}

std::string readings(double balanced8, double balanced16) {
  const auto& [plain8, dual8, plain16, dual16] = kQwenRows;
  const auto told = [](double speed, const PublishedRow& row) {
    return formatted("%.0f (%s)", speed, deviation(speed, row.tokens_per_second).c_str());
  };
  const double interleaved = qwen_speed(kInterleavedReading);
  const double stages8 = qwen_speed(kEp8 + kQwenDualPipeV + "2 3 3 3 3 3 3 2");
  const double stages16 = qwen_speed(kEp16 + kQwenDualPipeV + "3 4 4 4 4 4 4 3");
  return concat(
      "| reading | EP8 | EP16 | fit or prediction |\n|---|---|---|---|\n"
      "| 1f1b EP8 as printed (2 3 3 3 2 3 3 3), read as two virtual stages a rank | ",
      told(interleaved, plain8),
      " | | prediction |\n"
      "| dualpipev, the eight numbers in the order of stages (2 3 3 3 3 3 3 2, 3 4 4 4 4 4 4 3) | ",
      told(stages8, dual8), " | ", told(stages16, dual16),
      " | prediction |\n| 1f1b balanced for its head (6 6 6 4, 8 8 8 6) | ",
      formatted("%.0f | %.0f | prediction |\n", balanced8, balanced16));
}

struct DeepseekPrediction {
  const char* scheme;
  int dense;  // layers
  double plain = 0, recomputed = 0, overlapped = 0;
};

std::vector<DeepseekPrediction> deepseek_predictions() {
  std::vector<DeepseekPrediction> all{
      {"allgather", 0}, {"allgather", 1}, {"allgather", 2}, {"allgather", 3}, {"node", 0},
      {"node", 3},      {"rank", 0},      {"rank", 3},      {"expert", 0},    {"expert", 3}};
  for (DeepseekPrediction& one : all) {
    const std::string both =
        formatted(" --dispatch-scheme %s --first-k-dense-replace %d", one.scheme, one.dense);
    const auto speed = [&](const std::string& options) {
      return predict(deepseek_options(options + both)).tokens_per_second;
    };
    one.plain = speed(kDeepseekPlain);
    one.recomputed = speed(kDeepseekPlain + " --recompute-granularity full");
    one.overlapped = speed(kDeepseekDualPipeV);
  }
  return all;
}

// The row that explains best, as bold as it is in the page.
bool is_best(const DeepseekPrediction& one) {
  return one.scheme == std::string("allgather") && one.dense == 2;
}

std::string deepseek_table(const std::vector<DeepseekPrediction>& rows) {
  std::string text =
      "| scheme, dense layers | 1f1b | 1f1b, full recompute | dualpipev | gain | gain over "
      "recompute "
      "| fit or prediction |\n|---|---|---|---|---|---|---|\n";
  for (const DeepseekPrediction& row : rows) {
    const char* bold = is_best(row) ? "**" : "";
    const auto told = [&](double speed, double published) {
      return formatted("%.0f (%s)", speed, deviation(speed, published).c_str());
    };
    text += concat(
        "| ", bold, row.scheme, ", ", row.dense, bold, " | ", told(row.plain, kDeepseekPlainSpeed),
        " | ", bold, told(row.recomputed, kDeepseekPlainSpeed), bold, " | ", bold,
        told(row.overlapped, kDeepseekDualPipeVSpeed), bold,
        formatted(" | %.0f %% | ", gain(row.overlapped, row.plain)), bold,
        formatted("%.0f %%", gain(row.overlapped, row.recomputed)), bold, " | prediction |\n");
  }
  return text;
}

// How much longer the 1f1b row takes, in per cent, if nothing of the shared expert runs beside
// dispatch and combine: all of its forward and input gradients on the rank with most layers.
double most_lost_without_beside(const Options& options) {
  const RunSpec spec = run_spec(options);
  int64_t layers = 0;
  for (const StageLayers& stage : spec.pipeline.stages) layers = std::max(layers, stage.count);
  const PartTimes shared =
      layer_times(spec, hardware_of(options.runtime.hardware), /*has_experts=*/true).shared;
  const double seconds =
      as_double(layers * spec.batch.num_micro_batches) * (shared.forward + shared.backward_input);
  return 100 * seconds / predict(options).step_time;
}

// What follows from the table, in words.
std::string deepseek_findings(const std::vector<DeepseekPrediction>& rows) {
  const double published_gain = gain(kDeepseekDualPipeVSpeed, kDeepseekPlainSpeed);
  double overlapped = 0;
  for (const DeepseekPrediction& row : rows)
    overlapped = bound({overlapped, gain(row.overlapped, kDeepseekDualPipeVSpeed)});
  const DeepseekPrediction &all0 = rows[0], &all1 = rows[1], &all2 = rows[2], &expert0 = rows[8],
                           &expert3 = rows[9];
  const double recompute =
      bound({gain(all1.recomputed, kDeepseekPlainSpeed), gain(all2.recomputed, kDeepseekPlainSpeed),
             gain(all1.overlapped, kDeepseekDualPipeVSpeed),
             gain(all2.overlapped, kDeepseekDualPipeVSpeed)});
  const double points = bound({gain(all1.overlapped, all1.recomputed) - published_gain,
                               gain(all2.overlapped, all2.recomputed) - published_gain});
  const Options plain = deepseek_options(kDeepseekPlain + " --first-k-dense-replace 0");
  return formatted(
             "- The dualpipev row is explained by the constants of the Qwen rows alone, whatever "
             "the "
             "dispatcher, within %.0f %%.\n"
             "- The 1f1b row is not: with the default dispatcher it should be %.0f %% faster or "
             "more. "
             "Two things explain it alone: full\n"
             "  recompute in that run (with one or two dense layers both rows come out within %.0f "
             "%% "
             "and the gain within %.0f points), or a\n"
             "  dispatcher that sends a row for every chosen expert (within %.0f %%; both rows "
             "with it "
             "give a gain of %.0f to %.0f %% only).\n",
             overlapped, gain(all0.plain, kDeepseekPlainSpeed), recompute, points,
             bound({gain(expert0.plain, kDeepseekPlainSpeed)}),
             gain(expert0.overlapped, expert0.plain), gain(expert3.overlapped, expert3.plain)) +
         formatted(
             "- In both rows the shared expert runs beside dispatch, as it does here with every "
             "dispatcher; if in the published baseline it did\n"
             "  not, that row is at most %.1f %% slower.\n"
             "- The guide says that there was no recompute, and by our count it was not needed "
             "(%.0f "
             "GB a GPU). Which of the two it was, the\n"
             "  table does not tell.\n"
             "- The row says \"dualpipev\" without \"overlap\". Here blocks hide the communication "
             "of "
             "every dispatcher, whatever its name.\n",
             most_lost_without_beside(plain), most_held(predict(plain)) / kGiga);
}

std::string introduction() {
  const Hardware hardware = hardware_of("configs/hardware/h100-ib400.toml");
  return concat(
      "# The published table, predicted\n\n"
      "The user guide of the Megatron-Infinigence tools publishes six results on 64 H100 (8 "
      "nodes): "
      "sequences of 4096 tokens,\n"
      "micro-batch 1, 4096 sequences a step, no tensor parallelism, no recompute. `moetron "
      "simulate "
      "--cost model` predicts them\n"
      "from `configs/hardware/h100-ib400.toml`. Nothing here was run on 64 GPUs. This page is "
      "written "
      "from the predictions by\n"
      "`MOETRON_WRITE_DOCS=1 plan_test`; a test fails where it and they differ.\n\n"
      "## What is measured and what is fitted\n\n"
      "Rates of kernels were measured on one H100 (2026-11-25), of links taken from datasheets and "
      "published reach; the file has each\n"
      "source. Two numbers are fitted, to the four Qwen rows together: all compute takes ",
      hardware.compute_slowdown,
      " times as long as the kernels alone,\nand a dispatch or combine takes ",
      hardware.dispatch_overhead / kMilli,
      " ms beside its bytes. They stand under `[system]` of the hardware file, which says so. The\n"
      "DeepSeek rows use the same two. Each row says which it is: a *fit* (the constants come from "
      "it) or a *prediction*.\n\n"
      "Model shapes are in `configs/published/`. A Qwen head is 64 wide, as the guide's script "
      "leaves "
      "`kv-channels` unset and the\n"
      "published TFLOP/s over tokens/s says. Dispatcher: the scripts' default, `allgather_fused`, "
      "and "
      "its overlapped form.\n\n");
}

// As a shell has them, the options that rows share in variables.
std::string qwen_commands() {
  std::string text = concat("## Qwen3-235B, cut down\n\n    S=\"moetron ", kQwenCommand,
                            "\"\n    EP8=\"", kEp8, "\"\n    EP16=\"", kEp16, "\"\n    V=\"",
                            kQwenDualPipeV.substr(1, kQwenDualPipeV.size() - 2), "\"\n");
  for (const PublishedRow& row : kQwenRows) {
    std::string options = row.options;
    for (const auto& [written_out, variable] :
         {std::pair(kEp8, "$EP8"), {kEp16, "$EP16"}, {kQwenDualPipeV, " $V "}}) {
      const size_t at = options.find(written_out);
      if (at != std::string::npos) options.replace(at, written_out.size(), variable);
    }
    text += concat("    $S ", options, "\n");
  }
  return text + "\n";
}

std::string deepseek_commands() {
  return concat(
      "## DeepSeek-V3, 7 layers\n\n",
      formatted("Published: 1f1b (4 3) %.0f tokens/s/GPU, dualpipev (2 2 1 2) %.0f, a gain "
                "of %.1f %%.\n\n",
                kDeepseekPlainSpeed, kDeepseekDualPipeVSpeed,
                gain(kDeepseekDualPipeVSpeed, kDeepseekPlainSpeed)),
      "    D=\"moetron ", kDeepseekCommand,
      " --dispatch-scheme SCHEME --first-k-dense-replace K\"\n    $D ", kDeepseekPlain, "\n    $D ",
      kDeepseekPlain, " --recompute-granularity full\n    $D ", kDeepseekDualPipeV,
      "\n\nSCHEME is how often a token travels: to every rank (`allgather`), once for each "
      "node, rank or expert that it chose.\n\n");
}

}  // namespace

std::string published_table_page() {
  std::vector<Prediction> qwen;
  for (const PublishedRow& row : kQwenRows) qwen.push_back(predict(qwen_options(row.options)));
  const double balanced8 = qwen_speed(kEp8 + kQwenStages + "6 6 6 4");
  const double balanced16 = qwen_speed(kEp16 + kQwenStages + "8 8 8 6");
  const auto [least, most] = waits(qwen[2]);
  const double dual_waits = waits(qwen[3]).second;
  const RunSpec spec = run_spec(qwen_options(kQwenRows[0].options));
  const Hardware hardware = hardware_of("configs/hardware/h100-ib400.toml");
  const auto whole = [](const PartTimes& part) {
    return part.forward + part.backward_input + part.backward_weight;
  };
  const LayerTimes layer = layer_times(spec, hardware, /*has_experts=*/true);
  const double layers_of_head =
      whole(head_times(spec, hardware)) / (whole(layer.attention) + whole(layer.experts));
  const std::vector<DeepseekPrediction> deepseek = deepseek_predictions();
  return introduction() + qwen_commands() + qwen_table(qwen) +
         "\nHow far the guesses behind it matter:\n\n" + readings(balanced8, balanced16) +
         formatted(
             "\nSo the numbers are chunk 0 of every rank, then chunk 1. Against a balanced 1f1b "
             "the "
             "gain is %.0f %% at EP8 and %.0f %% at EP16:\n"
             "the rest is the head on a last stage that has as many layers as the first. The head "
             "costs as much as %.1f layers compute.\n"
             "At EP16 a rank of the 1f1b run waits %.0f to %.0f %% of its time for dispatch and "
             "combine, of the dualpipev run %.1f %% at most.\n\n",
             gain(qwen[1].tokens_per_second, balanced8),
             gain(qwen[3].tokens_per_second, balanced16), layers_of_head, least, most, dual_waits) +
         deepseek_commands() + deepseek_table(deepseek) + "\n" + deepseek_findings(deepseek);
}

}  // namespace moetron
