#include "moetron/convert/converted_weights.h"

#include <nlohmann/json.hpp>

#include "moetron/arch/quantization.h"
#include "moetron/convert/fp8_source.h"
#include "moetron/convert/model_config_text.h"
#include "moetron/convert/typed_source.h"

namespace moetron {
namespace {

SafetensorsDtype stored_type(WeightDtype dtype) {
  if (dtype == WeightDtype::kBf16) return SafetensorsDtype::kBF16;
  return dtype == WeightDtype::kFp16 ? SafetensorsDtype::kF16 : SafetensorsDtype::kF32;
}

}  // namespace

ConvertedWeights::ConvertedWeights(const ModelContent& content, WeightDtype dtype)
    : config_(content.config) {
  const TensorSource* source = &content.weights;
  const bool is_in_8_bits = has_scales(*source);
  const bool stays = dtype == WeightDtype::kStored || (dtype == WeightDtype::kFp8 && is_in_8_bits);
  if (!stays) {
    JsonFields fields(config_, content.place);
    fields.set_nullable({"quantization_config"});
    check_quantization(fields);
    if (is_in_8_bits) source = add<Fp8Source>(*source, content.place);
    if (dtype == WeightDtype::kFp8) {
      source = add<Fp8Target>(*source);
      config_ = with_fp8(std::move(config_));
    } else {
      source = add<TypedSource>(*source, stored_type(dtype));
      config_ = with_dtype(std::move(config_), stored_type(dtype));
    }
  }
  result_ = source;
}

}  // namespace moetron
