// What a backward computes again instead of keeping it, as data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "moetron/schedule/layer_program.h"

namespace moetron {

// (What --mlp-recompute leaves out is the experts' own business.)
struct RecomputeSettings {
  enum class Kind {
    kNone,
    kMoeLayer,  // dispatch, experts and shared expert of the layers that have a router
    kFull,      // decoder layers, `num_layers` at a time from the input of the first
  };
  Kind kind = Kind::kNone;
  int64_t num_layers = 1;
};

// Of one layer of a chunk.
struct LayerRecompute {
  uint32_t nodes = 0;  // bit i: node i runs again
  // Layers [first, last] of the chunk run again together, before the backward of the last begins.
  int first = 0;
  int last = 0;

  bool runs_again(int node) const { return (nodes >> node & 1) != 0; }
  // Whether the layer's input is computed again, rather than kept.
  bool input_comes_again(int layer) const { return nodes != 0 && layer > first; }
};

// The layers of a chunk in their order. The programs outlive it.
struct ChunkProgram {
  ChunkProgram() = default;
  ChunkProgram(std::vector<const LayerProgram*> programs, const RecomputeSettings& settings);

  int num_layers() const { return static_cast<int>(layers.size()); }
  const LayerProgram& layer(int index) const { return *layers[static_cast<size_t>(index)]; }

  std::vector<const LayerProgram*> layers;
  std::vector<LayerRecompute> recompute;  // by layer
};

}  // namespace moetron
