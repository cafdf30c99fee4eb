// Whole tensors, and the ways in which ranks may divide them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/save_plan.h"

namespace moetron {

using WholeTensors = std::map<std::string, at::Tensor>;

enum class Layout {
  kReplicas,  // every rank holds everything
  kRows,      // parts of dimension 0, the last ones short or empty
  kColumns,   // parts of the last dimension
  kGrid,      // halves of the columns, of which each has parts of the rows
  kExperts,   // tensors named ".experts.N." by turns, stacked ones in parts, the rest on all ranks
  kStretch,   // ranges of elements, cut anywhere: ZeRO
};
inline constexpr Layout kLayouts[] = {Layout::kReplicas, Layout::kRows,    Layout::kColumns,
                                      Layout::kGrid,     Layout::kExperts, Layout::kStretch};

// What `rank` of `size` holds. Copies of its part of the values, in memory of various strides; or
// zeros, to be filled; or shapes alone, which take no memory.
enum class Values { kCopied, kZero, kNone };
std::vector<NamedSlice> cut(const WholeTensors& tensors, Layout layout, int rank, int size,
                            Values values = Values::kCopied);

// Whether every slice holds what the whole tensors have there.
bool holds(const std::vector<NamedSlice>& slices, const WholeTensors& tensors);

// A small model: odd sizes, dense and expert weights of three types, one stacked, and optimizer
// state. Small shards make files, and so blocks,
// enough for eight ranks.
WholeTensors layouts_weights();
WholeTensors layouts_states();
inline constexpr SaveSettings kSmallShards{.shard_bytes = 600};

// What `rank` brings: weights and states may be divided in ways of their own.
CheckpointContent layouts_content(Layout weights, Layout states, int rank, int size);

// The name and text of every file below a folder.
std::map<std::string, std::string> read_tree(const std::filesystem::path& folder);

}  // namespace moetron
