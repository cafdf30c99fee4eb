#include "moetron/schedule/layer_program.h"

#include <algorithm>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using Types = std::vector<SlotType>;

struct Signature {
  NodeRole role;
  const char* name;
  Types inputs, outputs;
};

// The signature of a sum is any number of token slots.
const Signature& signature_of(NodeRole role) {
  using enum SlotType;
  static const Signature signatures[] = {
      {NodeRole::kEmbedding, "embedding", {}, {kTokens}},
      {NodeRole::kAttention, "attention", {kTokens}, {kTokens, kTokens, kRouting, kAuxLoss}},
      {NodeRole::kDispatch, "dispatch", {kTokens, kRouting}, {kExpertRows, kRowWeights}},
      {NodeRole::kSharedExpert, "shared expert", {kTokens}, {kTokens}},
      {NodeRole::kExperts, "experts", {kExpertRows, kRowWeights}, {kExpertRows}},
      {NodeRole::kMlp, "mlp", {kTokens}, {kTokens}},
      {NodeRole::kCombine, "combine", {kExpertRows}, {kTokens}},
      {NodeRole::kSum, "aggregate", {}, {kTokens}},
      {NodeRole::kHead, "head and loss", {kTokens}, {kTokens, kLabelLoss}},
  };
  for (const Signature& signature : signatures) {
    if (signature.role == role) return signature;
  }
  throw InternalError("a node's role without a signature");
}

bool fits(const Types& wanted, const Types& given, bool may_be_fewer) {
  if (may_be_fewer ? given.size() > wanted.size() : given.size() != wanted.size()) return false;
  return std::equal(given.begin(), given.end(), wanted.begin());
}

}  // namespace

const char* name_of(NodeRole role) {
  return signature_of(role).name;
}

bool communicates(NodeRole role) {
  return role == NodeRole::kDispatch || role == NodeRole::kCombine;
}

bool is_compute(NodeRole role) {
  return !communicates(role) && role != NodeRole::kSum;
}

LayerProgram::LayerProgram(std::vector<SlotType> slots, std::vector<Node> nodes,
                           std::vector<Slot> inputs, std::vector<Slot> outputs)
    : slots_(std::move(slots)),
      nodes_(std::move(nodes)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      writers_(slots_.size(), num_nodes()),  // nobody, so far
      readers_(slots_.size()) {
  MT_CHECK(nodes_.size() <= 32, "a layer of ", nodes_.size(), " nodes; at most 32");
  const auto write = [&](Slot slot, int writer) {
    int& known = writers_.at(static_cast<size_t>(slot.index));
    MT_CHECK(known == num_nodes(), "slot ", slot.index, " of a layer is written twice");
    known = writer;
  };
  const auto check_written = [&](Slot slot) {
    MT_CHECK(writers_.at(static_cast<size_t>(slot.index)) < num_nodes(), "slot ", slot.index,
             " of a layer is read before it is written");
  };
  for (const Slot slot : inputs_) write(slot, kLayerInput);
  for (int index = 0; index < num_nodes(); ++index) {
    const Node& node = nodes_[static_cast<size_t>(index)];
    const Signature& signature = signature_of(node.role);
    Types input_types, output_types;
    for (const Slot slot : node.inputs) {
      check_written(slot);
      readers_[static_cast<size_t>(slot.index)].push_back(index);
      input_types.push_back(type(slot));
    }
    for (const Slot slot : node.outputs) {
      write(slot, index);
      output_types.push_back(type(slot));
    }
    const bool is_sum = node.role == NodeRole::kSum;
    const Types wanted = is_sum ? Types(input_types.size(), SlotType::kTokens) : signature.inputs;
    // Attention of a dense layer routes nothing.
    MT_CHECK(fits(wanted, input_types, false) &&
                 fits(signature.outputs, output_types, node.role == NodeRole::kAttention),
             signature.name, ", node ", index, " of a layer, has slots of other types");
    is_cut_ = is_cut_ || node.stretch != Stretch::kBegin;
    has_experts_ = has_experts_ || node.role == NodeRole::kDispatch;
  }
  for (const Slot slot : outputs_) check_written(slot);
  for (const SlotType root : {SlotType::kLabelLoss, SlotType::kAuxLoss}) {
    MT_CHECK(std::count(slots_.begin(), slots_.end(), root) <= 1,
             "a layer has one label loss and one aux loss at most");
  }
}

const LayerProgram& sparse_layer_program(bool has_shared_expert) {
  using enum SlotType;
  static constexpr Slot kInput{0}, kResidual{1}, kNormed{2}, kRouted{3}, kAux{4}, kRows{5},
      kWeights{6}, kWeighted{7}, kCombined{8}, kOutput{9}, kShared{10};
  const auto make = [](bool shared) {
    Types slots = {kTokens,     kTokens,     kTokens,     kRouting, kAuxLoss,
                   kExpertRows, kRowWeights, kExpertRows, kTokens,  kTokens};
    std::vector<Node> nodes = {
        {NodeRole::kAttention, Stretch::kBegin, {kInput}, {kResidual, kNormed, kRouted, kAux}},
        {NodeRole::kDispatch, Stretch::kBegin, {kNormed, kRouted}, {kRows, kWeights}}};
    std::vector<Slot> summed = {kCombined, kResidual};
    if (shared) {
      slots.push_back(kTokens);
      nodes.push_back({NodeRole::kSharedExpert, Stretch::kBeside, {kNormed}, {kShared}});
      summed.push_back(kShared);
    }
    nodes.push_back({NodeRole::kExperts, Stretch::kMiddle, {kRows, kWeights}, {kWeighted}});
    nodes.push_back({NodeRole::kCombine, Stretch::kMiddle, {kWeighted}, {kCombined}});
    nodes.push_back({NodeRole::kSum, Stretch::kEnd, summed, {kOutput}});
    return LayerProgram(slots, nodes, {kInput}, {kOutput});
  };
  static const LayerProgram plain = make(false), with_shared = make(true);
  return has_shared_expert ? with_shared : plain;
}

const LayerProgram& dense_layer_program() {
  static constexpr Slot kInput{0}, kResidual{1}, kNormed{2}, kMixed{3}, kOutput{4};
  static const LayerProgram program(
      Types(5, SlotType::kTokens),
      {{NodeRole::kAttention, Stretch::kBegin, {kInput}, {kResidual, kNormed}},
       {NodeRole::kMlp, Stretch::kMiddle, {kNormed}, {kMixed}},
       {NodeRole::kSum, Stretch::kEnd, {kMixed, kResidual}, {kOutput}}},
      {kInput}, {kOutput});
  return program;
}

const LayerProgram& embedding_program() {
  static const LayerProgram program(
      {SlotType::kTokens}, {{NodeRole::kEmbedding, Stretch::kBegin, {}, {Slot{0}}}}, {}, {Slot{0}});
  return program;
}

const LayerProgram& head_program() {
  static const LayerProgram program(
      {SlotType::kTokens, SlotType::kTokens, SlotType::kLabelLoss},
      {{NodeRole::kHead, Stretch::kBegin, {Slot{0}}, {Slot{1}, Slot{2}}}}, {Slot{0}}, {Slot{1}});
  return program;
}

}  // namespace moetron
