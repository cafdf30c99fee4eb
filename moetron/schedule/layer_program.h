// What a layer does with a micro-batch, as data (DESIGN: idea 1): nodes that read and write slots.
// Decoder layers, embedding and head are programs of one kind; the executor runs them
// (pipeline/chunk.h), the planner times them (plan/step_program.h), and neither knows a layer
// by anything else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moetron {

// What a node computes, or moves: where its code, its cost and its name are found.
enum class NodeRole {
  kEmbedding,
  kAttention,  // with norms, residual and router
  kDispatch,   // tokens travel to the ranks of their experts
  kSharedExpert,
  kExperts,
  kMlp,      // of a dense layer
  kCombine,  // rows travel back, and are summed by token
  kSum,      // of its inputs, in their order
  kHead,     // final norm, head and loss
};
const char* name_of(NodeRole role);
bool communicates(NodeRole role);
// Whether the layer computes it, and may have weights; dispatch, combine and sum are the engine's.
bool is_compute(NodeRole role);

// What a slot holds. Gradients flow through one tensor of each, which is fp32 or the activations'
// type.
enum class SlotType {
  kTokens,      // [slice, width]: this rank's rows of the micro-batch
  kRouting,     // probabilities [slice, top_k], with the choices that they belong to
  kExpertRows,  // [rows, width], sorted by local expert, with their counts
  kRowWeights,  // [rows], the probability of each such row
  // Roots of the gradient: nothing reads them. Scalars, or [tokens] where each label's is wanted.
  kLabelLoss,
  kAuxLoss,
};

struct Slot {
  int index = 0;
  bool operator==(const Slot&) const = default;
};

// A layer is cut into stretches, so that those of another micro-batch may be put between them:
// what travels is begun at the end of one and awaited in the next that reads it.
enum class Stretch {
  kBegin,   // up to dispatch
  kBeside,  // needs nothing that travels
  kMiddle,  // behind dispatch, up to combine
  kEnd,     // behind combine
};
inline constexpr Stretch kStretches[] = {Stretch::kBegin, Stretch::kBeside, Stretch::kMiddle,
                                         Stretch::kEnd};

struct Node {
  NodeRole role;
  Stretch stretch;  // of what travels: where it begins
  std::vector<Slot> inputs, outputs;
};

// Nodes in the order of a forward; the gradient of a slot is the sum of its readers', in this
// order.
class LayerProgram {
 public:
  // Throws InternalError unless every slot is written once, before it is read, with the types that
  // its nodes' roles want; at most 32 nodes.
  LayerProgram(std::vector<SlotType> slots, std::vector<Node> nodes, std::vector<Slot> inputs,
               std::vector<Slot> outputs);

  int num_nodes() const { return static_cast<int>(nodes_.size()); }
  int num_slots() const { return static_cast<int>(slots_.size()); }
  const std::vector<Node>& nodes() const { return nodes_; }
  const Node& node(int index) const { return nodes_[static_cast<size_t>(index)]; }
  SlotType type(Slot slot) const { return slots_[static_cast<size_t>(slot.index)]; }
  // What comes from the layer before, and goes to the next.
  const std::vector<Slot>& inputs() const { return inputs_; }
  const std::vector<Slot>& outputs() const { return outputs_; }

  static constexpr int kLayerInput = -1;
  int writer(Slot slot) const { return writers_[static_cast<size_t>(slot.index)]; }  // node
  const std::vector<int>& readers(Slot slot) const {  // nodes, without the next layer
    return readers_[static_cast<size_t>(slot.index)];
  }

  // Whether it has several stretches; else it is an end of the model, which hides nothing.
  bool is_cut() const { return is_cut_; }
  bool has_experts() const { return has_experts_; }  // what it reads from them has travelled

 private:
  std::vector<SlotType> slots_;
  std::vector<Node> nodes_;
  std::vector<Slot> inputs_, outputs_;
  std::vector<int> writers_;
  std::vector<std::vector<int>> readers_;
  bool is_cut_ = false;
  bool has_experts_ = false;
};

// attention -> dispatch -> experts -> combine -> sum, with the shared expert beside what travels.
const LayerProgram& sparse_layer_program(bool has_shared_expert);
// attention -> mlp -> sum.
const LayerProgram& dense_layer_program();
const LayerProgram& embedding_program();
// Without labels its output is the logits, else nothing.
const LayerProgram& head_program();

}  // namespace moetron
