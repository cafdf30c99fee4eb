// The order in which a rank does what the steps of a schedule are made of: what computes, and what
// travels meanwhile. One list, which the executor runs (pipeline/block.h) and the planner times
// (plan/step_program.h). Every kernel sees the same inputs in each order, so that the results are
// the same bits.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "moetron/schedule/recompute.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

enum class Pass {
  kForward,
  kAgain,  // a forward once more, for the backward that it belongs to
  kInputGrad,
  kWeightGrad,
};

struct Instruction {
  enum class Act {
    kBeginLayer,  // its input, or its output's gradient, is there
    kCompute,
    kStart,     // begins what travels
    kFinish,    // waits for it
    kEndLayer,  // of a backward: the layer's gradients are complete, and nothing of it is kept
    kSend,      // the chunk's output, or the gradient of its input, leaves
    kFill,      // a wait, which the weight gradients of another micro-batch may fill
  };
  Act act;
  Pass pass;
  bool of_backward;  // of a step's I or B, else of its F
  int layer = 0;     // of the chunk
  int node = 0;      // of the layer
};

// "start dispatch F0": node, pass and layer; "send F", "fill I".
std::string describe(const Instruction& instruction, const ChunkProgram& chunk);

using InstructionList = std::vector<Instruction>;

// An F alone, and an I (without weights) or B alone; `fills` marks the waits.
InstructionList forward_instructions(const ChunkProgram& chunk, bool fills);
InstructionList backward_instructions(const ChunkProgram& chunk, bool with_weights, bool fills);

// F beside B, layer by layer, in the order of DeepSeek-AI's DualPipe (the profile published with
// it). Computed: attention F, experts I, experts W, experts F, attention I, attention W; meanwhile,
// each started as soon as its input is there: combine's backward, dispatch, dispatch's backward,
// combine. Of chunks with different numbers of layers those without a partner run alone. The
// results leave before the last weight gradients.
InstructionList block_instructions(const ChunkProgram& forward, const ChunkProgram& backward,
                                   bool with_weights);

// Of a step whose F, and whose I or B, are of these chunks; null where it has none. A W fills waits
// and an R follows: alone they have no instructions.
InstructionList step_instructions(const Step& step, const ChunkProgram* forward,
                                  const ChunkProgram* backward);

// How many of `left` pieces of work the next of `waits` waits takes, so that all take equal parts.
size_t share_of_wait(size_t left, size_t waits);

}  // namespace moetron
