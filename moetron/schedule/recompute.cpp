#include "moetron/schedule/recompute.h"

namespace moetron {
namespace {

uint32_t bits_of(const LayerProgram& program, bool (*chosen)(const Node&)) {
  uint32_t bits = 0;
  for (int i = 0; i < program.num_nodes(); ++i) {
    if (chosen(program.node(i))) bits |= uint32_t{1} << i;
  }
  return bits;
}

// Nothing behind the experts: a backward needs no output of theirs.
bool is_up_to_experts(const Node& node) {
  return node.role != NodeRole::kCombine && node.stretch != Stretch::kEnd;
}

}  // namespace

ChunkProgram::ChunkProgram(std::vector<const LayerProgram*> programs,
                           const RecomputeSettings& settings)
    : layers(std::move(programs)), recompute(layers.size()) {
  using Kind = RecomputeSettings::Kind;
  int64_t num_together = 0;  // of the layers so far
  for (int i = 0; i < num_layers(); ++i) {
    LayerRecompute& here = recompute[static_cast<size_t>(i)];
    here.first = here.last = i;
    if (settings.kind == Kind::kNone || !layer(i).is_cut()) {
      num_together = 0;
      continue;
    }
    if (settings.kind == Kind::kMoeLayer) {
      if (!layer(i).has_experts()) continue;
      here.nodes = bits_of(layer(i), [](const Node& node) {
        return is_up_to_experts(node) && node.role != NodeRole::kAttention;
      });
      continue;
    }
    here.nodes = bits_of(layer(i), is_up_to_experts);
    if (num_together > 0 && num_together < settings.num_layers) {
      LayerRecompute& before = recompute[static_cast<size_t>(i - 1)];
      before.nodes = bits_of(layer(i - 1), [](const Node&) { return true; });
      here.first = before.first;
      for (int j = here.first; j < i; ++j) recompute[static_cast<size_t>(j)].last = i;
      ++num_together;
    } else {
      num_together = 1;
    }
  }
}

}  // namespace moetron
