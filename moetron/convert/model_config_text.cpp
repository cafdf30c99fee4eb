#include "moetron/convert/model_config_text.h"

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/formats/fp8_blocks.h"

namespace moetron {
namespace {

constexpr char kQuantization[] = "quantization_config";

const char* torch_name(SafetensorsDtype dtype) {
  switch (dtype) {
    case SafetensorsDtype::kBF16:
      return "bfloat16";
    case SafetensorsDtype::kF16:
      return "float16";
    case SafetensorsDtype::kF32:
      return "float32";
    default:
      throw InternalError(concat(dtype_name(dtype), " is no type of a model"));
  }
}

// transformers 5 says dtype where those before it say torch_dtype.
void set_dtype(Json& config, const char* name) {
  const bool says_dtype = config.contains("dtype");
  if (says_dtype) config["dtype"] = name;
  if (config.contains("torch_dtype") || !says_dtype) config["torch_dtype"] = name;
}

}  // namespace

Json with_dtype(Json config, SafetensorsDtype dtype) {
  config.erase(kQuantization);
  set_dtype(config, torch_name(dtype));
  if (config.contains("text_config") && config["text_config"].is_object())
    set_dtype(config["text_config"], torch_name(dtype));
  return config;
}

Json with_fp8(Json config) {
  config[kQuantization] = {{"activation_scheme", "dynamic"},
                           {"fmt", "e4m3"},
                           {"quant_method", "fp8"},
                           {"weight_block_size", {kScaleBlock, kScaleBlock}}};
  return config;
}

}  // namespace moetron
