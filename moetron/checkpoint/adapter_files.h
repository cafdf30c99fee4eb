// Folders of PEFT adapters: what a run of low-rank updates saves, and what others give.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/arch/adapter_config.h"
#include "moetron/autograd/parameter.h"

namespace moetron {

class Communicator;

bool holds_adapter(const std::filesystem::path& folder);

// The model directory that an adapter's folder belongs to: `given` where that is not empty, else
// the one that the adapter names. InputError where there is none.
std::filesystem::path base_of_adapter(const std::filesystem::path& folder,
                                      const std::string& given);

AdapterConfig read_adapter_config(const std::filesystem::path& folder, const ModelConfig& model);

// The shape of a slice's tensor in a file: PEFT has B of all experts of a layer as one matrix [out,
// rank * experts], where slices [out, rank, experts] tell the experts apart. So have its states.
std::vector<int64_t> shape_in_file(std::string_view name, const std::vector<int64_t>& global_shape);

// Fills the slices of an adapter's tensors. InputError as load_weights(), and where the adapter has
// tensors that nobody wants: it would be another model without them. Collective over `world`.
void load_adapter(const std::filesystem::path& folder, const std::vector<NamedSlice>& slices,
                  Communicator* world = nullptr);

}  // namespace moetron
