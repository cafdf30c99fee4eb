// The arguments that Megatron keeps in a checkpoint: the model's shape and its layout.
#pragma once

#include "moetron/arch/inventory.h"
#include "moetron/convert/megatron_layout.h"
#include "moetron/formats/torch_file.h"

namespace moetron {

// By Megatron's names, as --use-checkpoint-args and its check of a checkpoint read them. `mtp`
// tells whether the files hold the layers of multi-token prediction.
TorchValues megatron_args(const ModelConfig& config, const MegatronLayout& layout, MtpTensors mtp);

// tp, tpe, ep and pp of the run that saved a file. InputError where its arguments are missing or
// no such numbers.
MegatronLayout layout_from_args(const TorchFile& file);

}  // namespace moetron
