#include "moetron/arch/lora.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <set>
#include <utility>

#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"

namespace moetron {
namespace {

constexpr std::string_view kWeight = ".weight";

constexpr std::array kModules = {tensors::kQuery,        tensors::kKey,        tensors::kValue,
                                 tensors::kAttentionOut, tensors::kQueryDown,  tensors::kQueryUp,
                                 tensors::kKeyValueDown, tensors::kKeyValueUp, tensors::kGate,
                                 tensors::kUp,           tensors::kDown};

bool is_in_experts(std::string_view weight) {
  return expert_of(weight) >= 0;
}

// "q_proj" of "model.layers.0.self_attn.q_proj.weight".
std::string_view module_of(std::string_view weight) {
  const std::string_view path = weight.substr(0, weight.size() - kWeight.size());
  return path.substr(path.rfind('.') + 1);
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += concat(text.empty() ? "" : ", ", name);
  return text;
}

TensorInfo factor_of(const TensorInfo& weight, std::vector<int64_t> shape, ShardRule shard) {
  TensorInfo factor = weight;
  factor.shape = std::move(shape);
  factor.shard = shard;
  return factor;
}

}  // namespace

int64_t expert_of(std::string_view weight) {
  const std::string experts = concat(".", tensors::kExperts);
  const size_t found = weight.find(experts);
  if (found == std::string_view::npos) return -1;
  std::string_view rest = weight.substr(found + experts.size());
  return take_number<int64_t>(rest).value_or(-1);
}

bool LoraConfig::has(std::string_view target) const {
  return std::find(targets.begin(), targets.end(), target) != targets.end();
}

std::string lora_target(std::string_view weight) {
  if (!weight.starts_with(kLayers) || !weight.ends_with(kWeight)) return "";
  const std::string_view module = module_of(weight);
  const bool is_known = std::any_of(kModules.begin(), kModules.end(), [&](const TensorRule& rule) {
    return module == module_of(rule.name);
  });
  if (!is_known) return "";
  if (!is_in_experts(weight)) return std::string(module);
  return std::string(module == module_of(tensors::kDown.name) ? kExpertDown : kExpertGateUp);
}

std::vector<std::string> lora_targets(const ModelConfig& config) {
  std::vector<std::string> targets;
  std::set<std::string> known;
  std::array<bool, 2> done{};  // dense layers, layers with experts
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (std::exchange(done.at(config.is_moe_layer(layer) ? 1 : 0), true)) continue;
    for (const TensorInfo& tensor : layer_tensors(config, layer)) {
      const std::string target = lora_target(tensor.name);
      if (!target.empty() && known.insert(target).second) targets.push_back(target);
    }
  }
  return targets;
}

std::vector<std::string> find_lora_targets(const ModelConfig& config,
                                           const std::vector<std::string>& given) {
  const std::vector<std::string> all = lora_targets(config);
  if (given.empty()) return all;
  std::set<std::string> wanted;
  for (const std::string& name : given) {
    const auto matches = [&](const std::string& target) {
      return target == name || (name == "experts" && target.starts_with("experts."));
    };
    MT_CHECK_CONFIG(std::any_of(all.begin(), all.end(), matches), "lora-targets (", name,
                    ") names no linear layer of attention, MLPs or experts; the model has ",
                    listed(all));
    std::copy_if(all.begin(), all.end(), std::inserter(wanted, wanted.end()), matches);
  }
  std::vector<std::string> targets;
  for (const std::string& target : all)
    if (wanted.contains(target)) targets.push_back(target);
  return targets;
}

std::string lora_name(const LoraConfig& lora, std::string_view weight, LoraFactor factor) {
  std::string module(weight.substr(0, weight.size() - kWeight.size()));
  if (is_in_experts(weight)) {
    module.resize(module.find(concat(".", tensors::kExperts)) + std::string(".mlp.experts").size());
    // PEFT wraps the module once for each of its parameters; the first one lies innermost.
    const bool is_inner = lora_target(weight) == kExpertGateUp && lora.has(kExpertDown);
    if (is_inner) module += ".base_layer";
  }
  return concat("base_model.model.", module, factor == LoraFactor::kA ? ".lora_A" : ".lora_B",
                kWeight);
}

std::vector<TensorInfo> lora_tensors(const LoraConfig& lora, const TensorInfo& weight) {
  const std::string target = lora_target(weight.name);
  if (target.empty() || !lora.has(target)) return {};
  const bool by_rows = weight.shard.dim == 0;
  std::vector<TensorInfo> factors;
  // The stacked gate and up of an expert are read by one A.
  const bool shares_a = target == kExpertGateUp && weight.name.ends_with(tensors::kUp.name);
  if (!shares_a) {
    factors.push_back(
        factor_of(weight, {lora.rank, weight.shape[1]}, by_rows ? ShardRule{} : weight.shard));
  }
  factors.push_back(
      factor_of(weight, {weight.shape[0], lora.rank}, by_rows ? weight.shard : ShardRule{}));
  return factors;
}

}  // namespace moetron
