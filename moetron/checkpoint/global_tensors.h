// What the world holds together: the slices of all ranks, put together to whole tensors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/autograd/parameter.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

class Communicator;

// The box of a tensor that is slices[slice] on rank `rank`, which writes it.
struct HeldBox {
  int rank = 0;
  int64_t slice = 0;
  std::vector<int64_t> begin;
  std::vector<int64_t> sizes;
};

struct GlobalTensor {
  SafetensorsTensor description;
  std::vector<HeldBox> boxes;  // none empty, disjoint, together the whole tensor; by `begin`
};

// The tensors that all ranks' slices make up, the same on every rank, sorted by name with numbers
// in their own order ("layers.2." before "layers.10."). A box that several ranks hold is the lowest
// one's. Collective over `world` (null: a single rank). InternalError, on every rank, where slices
// of a tensor disagree in shape or type, overlap, or do not add up to all of it.
std::vector<GlobalTensor> find_global_tensors(const std::vector<NamedSlice>& slices,
                                              Communicator* world);

// Whether `a` comes before `b` where numbers inside names count as numbers.
bool comes_before(std::string_view a, std::string_view b);

}  // namespace moetron
