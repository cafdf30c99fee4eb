// The layout matrix: every way in which 2, 4 and 8 ranks can be laid out over DP, TP, EP and TPE,
// for both models, and the settings that each is tried with.
#pragma once

#include <string>
#include <vector>

#include "layout_harness.h"

namespace moetron {

enum class Drop { kNone, kProbsPadded, kPosition };

struct MatrixCase {
  bool is_deepseek = true;
  Drop drop = Drop::kNone;
  Filling filling = Filling::kWhole;
  LayoutCase layout;
};

// The reference of a case differs by model, drop and filling alone.
LayoutCase single_rank(Drop drop);

// Each layout once for each model. The settings (dispatcher, recompute, product kind, projections
// of latent attention, optimizer, drop, documents) are chosen greedily so that every pair of values
// of two settings meets in some case; model, world and the size of each axis are settings too.
std::vector<MatrixCase> layout_matrix();

// The pairs that could meet and do not, as text.
std::vector<std::string> missing_pairs(const std::vector<MatrixCase>& cases);

}  // namespace moetron
