#include "moetron/convert/megatron_state.h"

#include <cstddef>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr size_t kMaxName = 1024;  // bytes, of a parameter
constexpr size_t kMaxChunks = 64;

// Later cores have another name for the layer within multi-token prediction.
std::string known_name(std::string_view name) {
  constexpr std::string_view later = ".mtp_model_layer.";
  std::string known(name);
  const size_t place = known.find(later);
  if (place != std::string::npos) known.replace(place, later.size(), ".transformer_layer.");
  return known;
}

}  // namespace

std::vector<const PickleValue*> megatron_states(const TorchFile& file) {
  if (const PickleValue* only = file.find("model")) return {only};
  std::vector<const PickleValue*> states;
  while (states.size() < kMaxChunks) {
    const PickleValue* state = file.find(concat("model", states.size()));
    if (state == nullptr) break;
    states.push_back(state);
  }
  return states;
}

MegatronState read_state(const TorchFile& file, const PickleValue& state) {
  MegatronState tensors;
  const Pickle& pickle = file.pickle();
  for (size_t i = 0; i + 1 < state.items.size(); i += 2) {
    const PickleValue& name = pickle.at(state.items[i]);
    const PickleValue& value = pickle.at(state.items[i + 1]);
    if (name.text.ends_with("_extra_state") || value.kind == PickleValue::Kind::kNone) continue;
    MT_CHECK_INPUT(name.text.size() <= kMaxName, file.path().string(), " holds a name of ",
                   name.text.size(), " bytes");
    tensors.insert_or_assign(known_name(name.text), file.tensor(value, name.text));
  }
  return tensors;
}

bool is_extra_state(std::string_view name) {
  return name.find("_extra_state") != std::string_view::npos;
}

bool is_of_optimizer(std::string_view name) {
  return name.starts_with("optimizer.") || name.find(".optimizer.") != std::string_view::npos;
}

}  // namespace moetron
