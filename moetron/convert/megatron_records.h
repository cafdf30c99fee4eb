// The CRCs that torch.save noted of the weights in Megatron's files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "moetron/formats/manifest.h"

namespace moetron {

// Reads the data of the weights that a folder of Megatron's holds, of either format and of the
// iteration that find_iteration() finds; a part of them, in several threads. Throws InputError,
// naming file and tensor, where it is not what was written, and for files that cannot be read. Of
// how many of the weights nothing is known, for torch.serialization.set_crc32_options(False) leaves
// the CRCs out, it returns.
uint64_t check_megatron_records(const std::filesystem::path& folder, ManifestPart part,
                                int num_threads, std::optional<int64_t> step = {});

}  // namespace moetron
