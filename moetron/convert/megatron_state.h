// The weights in a file of Megatron's, and which names are none of theirs.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/formats/torch_file.h"

namespace moetron {

// By name, the layer within multi-token prediction under its older one.
using MegatronState = std::map<std::string, TorchTensor, std::less<>>;

// What lies under "model" or, where that is not there, under "model0", "model1", ...
std::vector<const PickleValue*> megatron_states(const TorchFile& file);
// The tensors of one of them. _extra_state and what is None are left out; InputError as
// TorchFile::tensor(), and for names beyond all measure.
MegatronState read_state(const TorchFile& file, const PickleValue& state);

bool is_extra_state(std::string_view name);
// Of the sharded format, where the optimizer's tensors lie beside the model's.
bool is_of_optimizer(std::string_view name);

}  // namespace moetron
