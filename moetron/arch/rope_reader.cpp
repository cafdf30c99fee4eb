#include "moetron/arch/config_check.h"
#include "moetron/arch/config_reader.h"
#include "moetron/arch/json_fields.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

// The object that describes the scaling, if any: as in transformers 5 rope_scaling, or
// rope_parameters where that is empty.
std::optional<JsonFields> rope_object(const JsonFields& config) {
  auto object = config.object("rope_scaling");
  if (!object || object->is_empty()) object = config.object("rope_parameters");
  if (!object || object->is_empty()) return std::nullopt;
  // One object for each kind of layer: transformers would take none of it for these families.
  if (const auto nested = object->nested_key())
    object->refuse(*nested, "is not supported: rotary parameters must be the same in every layer");
  // A null factor of yarn follows from the lengths.
  object->set_nullable(
      {"beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "factor"});
  return object;
}

double read_theta(const JsonFields& config, const std::optional<JsonFields>& object) {
  const auto outer = config.number("rope_theta", kMinTheta, kMaxTheta);
  const auto inner =
      object ? object->number("rope_theta", kMinTheta, kMaxTheta) : std::optional<double>();
  if (outer && inner && *outer != *inner)
    object->refuse("rope_theta", concat("contradicts rope_theta (", *outer, ") outside of it"));
  const RopeConfig defaults;
  return inner.value_or(outer.value_or(defaults.theta));
}

RopeType read_type(const JsonFields& object) {
  const auto old_name = object.text("type");
  const auto name = object.text("rope_type");
  if (old_name && name && *old_name != *name)
    object.refuse("type", concat("contradicts rope_type (\"", *name, "\")"));
  const std::string type = name.value_or(old_name.value_or("default"));
  if (type == "default") return RopeType::kDefault;
  if (type == "linear") return RopeType::kLinear;
  if (type == "yarn") return RopeType::kYarn;
  if (type == "llama3") return RopeType::kLlama3;
  object.refuse(name ? "rope_type" : "type",
                "is not supported; default, linear, yarn and llama3 are");
}

void refuse_partial_rotary(const JsonFields& fields) {
  const auto factor = fields.number("partial_rotary_factor", 0.0, 1.0);
  if (factor && *factor != 1.0)
    fields.refuse("partial_rotary_factor", "is not supported: it must be 1");
}

void read_yarn(const JsonFields& object, int64_t max_position_embeddings, RopeConfig& rope) {
  rope.original_max_position_embeddings =
      object.integer("original_max_position_embeddings", 1, kMaxPositions)
          .value_or(max_position_embeddings);
  MT_CHECK_INPUT(object.has("factor") || object.is_null("factor"), object.place(),
                 ": the key factor is missing");
  rope.factor = object.number("factor", 1.0, kMaxRopeFactor)
                    .value_or(static_cast<double>(max_position_embeddings) /
                              static_cast<double>(rope.original_max_position_embeddings));
  // A zero here reads as "not given", as in transformers.
  const double fast = object.number("beta_fast", 0.0, kMaxRopeFactor).value_or(0.0);
  const double slow = object.number("beta_slow", 0.0, kMaxRopeFactor).value_or(0.0);
  if (fast != 0.0) rope.beta_fast = fast;
  if (slow != 0.0) rope.beta_slow = slow;
  if (rope.beta_fast < rope.beta_slow)
    object.refuse("beta_fast", concat("must not be below beta_slow (", rope.beta_slow, ")"));
  rope.mscale = object.number("mscale", 0.0, kMaxRopeFactor);
  rope.mscale_all_dim = object.number("mscale_all_dim", 0.0, kMaxRopeFactor);
  rope.attention_factor = object.number("attention_factor", 1e-6, kMaxRopeFactor);
  if (!object.boolean("truncate").value_or(true))
    object.refuse("truncate", "is not supported: it must be true");
}

void read_llama3(const JsonFields& object, int64_t max_position_embeddings, RopeConfig& rope) {
  rope.factor = object.required_number("factor", 1.0, kMaxRopeFactor);
  rope.low_freq_factor = object.required_number("low_freq_factor", 1e-6, kMaxRopeFactor);
  rope.high_freq_factor = object.required_number("high_freq_factor", 1e-6, kMaxRopeFactor);
  rope.original_max_position_embeddings =
      object.integer("original_max_position_embeddings", 1, kMaxPositions)
          .value_or(max_position_embeddings);
  if (rope.high_freq_factor <= rope.low_freq_factor)
    object.refuse("high_freq_factor",
                  concat("must be above low_freq_factor (", rope.low_freq_factor, ")"));
}

}  // namespace

RopeConfig read_rope_config(const JsonFields& config, int64_t dim,
                            int64_t max_position_embeddings) {
  const auto object = rope_object(config);
  refuse_partial_rotary(config);
  RopeConfig rope;
  rope.dim = dim;
  rope.theta = read_theta(config, object);
  if (!object) return rope;
  refuse_partial_rotary(*object);
  rope.type = read_type(*object);
  if (rope.type == RopeType::kLinear) {
    rope.factor = object->required_number("factor", 1.0, kMaxRopeFactor);
  } else if (rope.type == RopeType::kYarn) {
    read_yarn(*object, max_position_embeddings, rope);
  } else if (rope.type == RopeType::kLlama3) {
    read_llama3(*object, max_position_embeddings, rope);
  }
  return rope;
}

}  // namespace moetron
