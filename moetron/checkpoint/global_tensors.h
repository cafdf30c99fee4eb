// What the world holds together: the slices of all ranks, put together to whole tensors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/autograd/parameter.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

// Who brings a box: slices[slice] of rank `rank`.
struct Holder {
  int rank = 0;
  int64_t slice = 0;
};

// A box of a tensor, and the ranks that hold it: more than one where they hold replicas.
struct HeldBox {
  std::vector<int64_t> begin;
  std::vector<int64_t> sizes;
  std::vector<Holder> holders;  // by rank
};

struct GlobalTensor {
  SafetensorsTensor description;
  std::vector<HeldBox> boxes;  // none empty, disjoint, together the whole tensor; by `begin`
};

// Names, types, shapes and places of a rank's slices, as they travel to the others: the same text
// for the same layout. InternalError where one does not lie inside its tensor, or has a type that
// checkpoints never hold.
std::string describe_slices(const std::vector<NamedSlice>& slices);

// The tensors that the slices of all ranks make up, from the descriptions by rank; sorted by name
// with numbers in their own order ("layers.2." before "layers.10."). InternalError where slices of
// a tensor disagree in shape or type, overlap, or do not add up to all of it.
std::vector<GlobalTensor> find_global_tensors(const std::vector<std::string>& descriptions);

// Whether `a` comes before `b` where numbers inside names count as numbers.
bool comes_before(std::string_view a, std::string_view b);

}  // namespace moetron
