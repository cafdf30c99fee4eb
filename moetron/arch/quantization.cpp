#include "moetron/arch/quantization.h"

#include <cstdint>
#include <vector>

namespace moetron {

void check_quantization(const JsonFields& fields) {
  constexpr int64_t kBlock = 128;
  const auto quantization = fields.object("quantization_config");
  if (!quantization) return;
  const bool is_readable = quantization->text("quant_method") == "fp8" &&
                           quantization->has("weight_block_size") &&
                           quantization->integers("weight_block_size", 1, INT32_MAX) ==
                               std::vector<int64_t>{kBlock, kBlock};
  if (!is_readable)
    fields.refuse("quantization_config",
                  "is not supported: fp8 with a weight_block_size of [128, 128] is");
}

}  // namespace moetron
