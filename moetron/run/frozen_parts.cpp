#include "moetron/run/frozen_parts.h"

#include <algorithm>
#include <map>
#include <utility>

#include "moetron/arch/inventory.h"
#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

struct NamedPart {
  const char* name;
  std::vector<std::string> patterns;
};

const std::vector<NamedPart>& known_parts() {
  const auto in_layers = [](const char* part, const char* rest) {
    return concat("*.", part, rest);
  };
  static const std::vector<NamedPart> parts = {
      {"embedding", {tensors::kEmbedding.name}},
      {"head", {tensors::kHead.name}},
      {"router", {in_layers(tensors::kRouter, "*")}},
      {"experts", {in_layers(tensors::kExperts, "*")}},
      {"shared_experts", {in_layers("mlp.shared_expert", "*")}},  // under either name, and the gate
      {"attention", {in_layers(tensors::kAttention, "*")}},
      {"mlp",
       {in_layers(tensors::kMlp, tensors::kGate.name), in_layers(tensors::kMlp, tensors::kUp.name),
        in_layers(tensors::kMlp, tensors::kDown.name)}},
      {"norms", {"*norm.weight"}}};
  return parts;
}

// Whether `name` is the pattern's text, with anything in place of each '*'.
bool matches(std::string_view name, std::string_view pattern) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name == pattern;
  if (!name.starts_with(pattern.substr(0, star))) return false;
  const std::string_view rest = pattern.substr(star + 1);
  for (size_t taken = star; taken <= name.size(); ++taken)
    if (matches(name.substr(taken), rest)) return true;
  return false;
}

bool any_matches(const std::vector<TensorInfo>& inventory, const std::string& pattern) {
  return std::any_of(inventory.begin(), inventory.end(),
                     [&](const TensorInfo& tensor) { return matches(tensor.name, pattern); });
}

std::string parts_of(const std::vector<TensorInfo>& inventory) {
  std::string text;
  for (const NamedPart& part : known_parts()) {
    if (any_matches(inventory, part.patterns.front()))
      text += concat(text.empty() ? "" : ", ", part.name);
  }
  return text;
}

// The weight that a tensor lies in, by some name that is the same for all in it.
std::string weight_of(const TensorInfo& tensor, bool fuses_down) {
  std::string name = tensor.name;
  const auto join = [&](const TensorRule& rule, const char* joined) {
    if (name.ends_with(concat(".", rule.name)))
      name.replace(name.size() - std::string(rule.name).size(), std::string::npos, joined);
  };
  if (tensor.is_expert()) {
    const size_t number = name.find(tensors::kExperts) + std::string(tensors::kExperts).size();
    name.erase(number, name.find('.', number) - number);
  }
  for (const TensorRule& rule : {tensors::kQuery, tensors::kKey, tensors::kValue})
    join(rule, "qkv");
  for (const TensorRule& rule : {tensors::kQueryBias, tensors::kKeyBias, tensors::kValueBias})
    join(rule, "qkv.bias");
  for (const TensorRule& rule : {tensors::kGate, tensors::kUp}) join(rule, "gate_up");
  for (const TensorRule& rule : {tensors::kQueryDown, tensors::kKeyValueDown})
    if (fuses_down) join(rule, "qkv_a");
  return name;
}

// Of each weight all tensors or none.
void check_whole_weights(const FrozenParts& frozen, const std::vector<TensorInfo>& inventory,
                         bool fuses_down) {
  std::map<std::string, std::pair<std::string, std::string>> by_weight;  // one frozen, one not
  bool is_any_left = false;
  for (const TensorInfo& tensor : inventory) {
    const bool is_frozen = frozen.contains(tensor.name);
    auto& [of_frozen, of_others] = by_weight[weight_of(tensor, fuses_down)];
    (is_frozen ? of_frozen : of_others) = tensor.name;
    is_any_left = is_any_left || (!is_frozen && !tensor.is_buffer);
    MT_CHECK_CONFIG(of_frozen.empty() || of_others.empty(), "freeze covers ", of_frozen,
                    " but not ", of_others, ", which lies in one weight with it: freeze both");
  }
  MT_CHECK_CONFIG(is_any_left, "freeze leaves nothing to train");
}

}  // namespace

bool FrozenParts::contains(std::string_view tensor) const {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(tensor, pattern); });
}

FrozenParts find_frozen_parts(const ModelConfig& config, const std::vector<std::string>& given,
                              bool fuses_down) {
  FrozenParts frozen{.names = given, .patterns = {}};
  if (given.empty()) return frozen;
  ModelConfig trained = config;
  trained.num_mtp_layers = 0;
  const std::vector<TensorInfo> inventory = tensor_inventory(trained);
  for (const std::string& name : given) {
    const auto part = std::find_if(known_parts().begin(), known_parts().end(),
                                   [&](const NamedPart& known) { return name == known.name; });
    const bool is_part = part != known_parts().end();
    const std::vector<std::string> patterns = is_part ? part->patterns : std::vector{name};
    MT_CHECK_CONFIG(any_matches(inventory, patterns.front()), "freeze (", name,
                    ") is no part of the model and matches none of its tensors; its parts are ",
                    parts_of(inventory), ", and a tensor is called ", inventory.front().name,
                    name == "head" ? " (the head is the embedding's table)" : "");
    frozen.patterns.insert(frozen.patterns.end(), patterns.begin(), patterns.end());
  }
  check_whole_weights(frozen, inventory, fuses_down);
  return frozen;
}

}  // namespace moetron
