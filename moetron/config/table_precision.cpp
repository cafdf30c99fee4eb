// Products in fewer bits.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

bool is_in_fp8(const Options& options) {
  return options.precision.fp8_format.has_value() || options.training.dtype == Dtype::kFp8;
}

std::string idle_without_fp8(const Options& options) {
  return is_in_fp8(options) ? "" : "it acts with fp8-format only";
}

std::string idle_without_bf16_layers(const Options& options) {
  const std::string reason = idle_without_fp8(options);
  if (!reason.empty() || options.precision.first_last_layers_bf16) return reason;
  return "it acts with first-last-layers-bf16 only";
}

}  // namespace

void declare_precision(OptionTable& table) {
  table.begin_group("precision", "Precision", {Command::kPretrain, Command::kBench});
  table
      .add(
          MT_FIELD(precision, fp8_format),
          "Products of attention's, MLPs' and experts' linear layers in 8 bits; e4m3: all factors; "
          "hybrid: gradients in E5M2, on CPUs alone.")
      .one_of({{"e4m3", Fp8Format::kE4m3}, {"hybrid", Fp8Format::kHybrid}})
      .also("fp8")
      .differs("Here the scales are blockwise, and hybrid is for CPUs alone.")
      .deciding_training();
  table
      .add(MT_FIELD(precision, fp8_recipe),
           "Which numbers share a scale; blockwise: DeepSeek-V3's, 128 of a row, 128 x 128 of a "
           "weight.")
      .one_of({{"blockwise", Fp8Recipe::kBlockwise},
               {"delayed", Standing::kNotYet, "a scale a tensor, of earlier steps"},
               {"tensorwise", Standing::kNotYet, "a scale a tensor"},
               {"mxfp8", Standing::kNotYet, "a scale for 32 numbers, on Blackwell"}})
      .megatron_takes("delayed", is_in_fp8)
      .idle_when(idle_without_fp8);
  table
      .add(MT_FIELD(precision, fp8_wgrad),
           "Factors of weight gradients; bf16: as the activations are, not in 8 bits.")
      .one_of({{"fp8", Fp8WeightGrad::kFp8}, {"bf16", Fp8WeightGrad::kBf16}})
      .ours()
      .idle_when(idle_without_fp8)
      .deciding_training();
  table
      .add(MT_FIELD(precision, moe_fp8_dispatch),
           "Tokens travel to their experts in 8 bits, and gradients back to them; without it as "
           "fp8-wgrad says, for the result is the same.")
      .ours()
      .idle_when(idle_without_fp8);
  table
      .add(MT_FIELD(precision, first_last_layers_bf16),
           "The first and the last decoder layers have no products in 8 bits.")
      .idle_when(idle_without_fp8)
      .deciding_training();
  for (const bool at_start : {true, false}) {
    (at_start ? table.add(MT_FIELD(precision, num_layers_at_start_in_bf16),
                          "How many of the first decoder layers that are.")
              : table.add(MT_FIELD(precision, num_layers_at_end_in_bf16),
                          "How many of the last decoder layers that are."))
        .unit("layers")
        .count_or_zero()
        .idle_when(idle_without_bf16_layers)
        .deciding_training();
  }
}

}  // namespace moetron
