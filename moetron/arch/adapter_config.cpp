#include "moetron/arch/adapter_config.h"

#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "moetron/arch/json_fields.h"
#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Whether PEFT would take a module of this name for one of the experts'.
bool is_mlp_module(const std::string& target) {
  return target == "gate_proj" || target == "up_proj" || target == "down_proj";
}

// "experts.down_proj" of "model.layers.3.mlp.experts.down_proj" and of "mlp.experts.down_proj",
// "down_proj" of "mlp.down_proj.weight".
std::string target_of_parameter(const std::string& parameter) {
  std::string path = parameter;
  if (path.ends_with(kWeight)) path.resize(path.size() - kWeight.size());
  for (const std::string_view stacked : {kExpertGateUp, kExpertDown})
    if (path == stacked || path.ends_with(concat(".", stacked))) return std::string(stacked);
  return path.substr(path.rfind('.') + 1);
}

void refuse_other_kinds(const Json& json, const JsonFields& fields) {
  const auto is_off = [&](const char* key) {
    const Json value = json.value(key, Json());
    return value.is_null() || value == Json(false) || value == Json(0) || value == Json(0.0) ||
           value == Json("none") || ((value.is_object() || value.is_array()) && value.empty());
  };
  for (const char* key :
       {"lora_dropout", "bias", "rank_pattern", "alpha_pattern", "modules_to_save", "use_rslora",
        "use_dora", "lora_bias", "fan_in_fan_out", "layers_to_transform", "layers_pattern",
        "trainable_token_indices", "exclude_modules", "layer_replication"}) {
    const bool is_harmless = std::string_view(key) == "lora_dropout";  // it is of training alone
    if (!is_harmless && !is_off(key)) fields.refuse(key, "is not there in Moetron's adapters");
  }
}

}  // namespace

Json write_adapter_config(const AdapterConfig& adapter, const ModelConfig& model) {
  Json modules = Json::array(), parameters = Json::array();
  for (const std::string& target : adapter.lora.targets) {
    const bool is_stacked = target == kExpertGateUp || target == kExpertDown;
    if (is_stacked) {
      parameters.push_back(concat("mlp.", target));
    } else if (model.moe && is_mlp_module(target)) {
      parameters.push_back(concat(target, kWeight));
    } else {
      modules.push_back(target);
    }
  }
  Json json = {{"peft_type", "LORA"},
               {"task_type", "CAUSAL_LM"},
               {"base_model_name_or_path", adapter.base},
               {"r", adapter.lora.rank},
               {"lora_alpha", adapter.lora.alpha},
               {"lora_dropout", 0.0},
               {"bias", "none"},
               {"fan_in_fan_out", false},
               {"init_lora_weights", true},
               {"inference_mode", true},
               {"use_rslora", false},
               {"use_dora", false},
               {"target_modules", modules}};
  if (!parameters.empty()) json["target_parameters"] = parameters;
  return json;
}

std::string read_adapter_base(const Json& json, const std::string& file) {
  MT_CHECK_INPUT(json.is_object(), file, " holds no object");
  return JsonFields(json, file).text("base_model_name_or_path").value_or("");
}

AdapterConfig read_adapter_config(const Json& json, const ModelConfig& model,
                                  const std::string& file) {
  AdapterConfig adapter{.lora = {}, .base = read_adapter_base(json, file)};
  JsonFields fields(json, file);
  fields.set_nullable({"target_modules", "target_parameters"});
  const std::string kind = fields.text("peft_type").value_or("");
  if (kind != "LORA") fields.refuse("peft_type", "must be LORA");
  refuse_other_kinds(json, fields);
  adapter.lora.rank = fields.required_integer("r", 1, std::numeric_limits<int32_t>::max());
  adapter.lora.alpha = fields.required_number("lora_alpha", 0, kInfinity);
  std::vector<std::string> targets;
  if (json.value("target_modules", Json()).is_string())
    fields.refuse("target_modules", "must list the modules");
  for (const std::string& module :
       fields.texts("target_modules").value_or(std::vector<std::string>()))
    targets.push_back(module.substr(module.rfind('.') + 1));
  for (const std::string& parameter :
       fields.texts("target_parameters").value_or(std::vector<std::string>()))
    targets.push_back(target_of_parameter(parameter));
  MT_CHECK_INPUT(!targets.empty(), file, " names no target_modules and no target_parameters");
  const std::vector<std::string> all = lora_targets(model);
  const std::set<std::string> known(all.begin(), all.end());
  for (const std::string& target : targets)
    MT_CHECK_INPUT(known.contains(target), file, ": the target ", target,
                   " is no linear layer of attention, MLPs or experts of its model");
  adapter.lora.targets = find_lora_targets(model, targets);
  return adapter;
}

}  // namespace moetron
