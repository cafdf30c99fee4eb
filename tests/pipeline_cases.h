// The matrix of pipelines: every kind of schedule with what can meet it.
#pragma once

#include <string>
#include <vector>

#include "layout_harness.h"
#include "pairwise.h"

namespace moetron {

struct PipelineCase {
  SettingValues values;
  std::string model;  // "deepseek, tied"
  ModelConfig config;
  Filling filling = Filling::kWhole;
  int64_t num_micro_batches = 0;  // of a data-parallel rank
  LayoutCase layout;

  TrainedTask task() const;  // two steps
  // One pipeline rank that takes the micro-batches in order; all that may change bits is the same.
  LayoutCase reference() const;
};

// The kinds as they are requested for so many ranks: interleaved with two chunks and with three,
// dualpipev+ with two amounts of communication, and with a cap.
std::vector<ScheduleRequest> schedule_requests(int num_ranks);

// Chosen greedily so that every pair of values of two settings meets that can: model, tied ends,
// schedule, pipeline ranks (1, 2, 4), micro-batches (2P, 2P + 1, 3P), division of the layers (even,
// uneven, none at the ends, none inside), ranks of a stage (1, 2, 4), TP, EP, TPE, dispatcher,
// recomputation, optimizer, product of the experts, documents. At most 16 ranks.
std::vector<PipelineCase> pipeline_matrix();

// Every schedule, number of pipeline ranks and micro-batches and division of the layers that go
// together, of DeepSeek with untied ends and one rank a stage.
std::vector<PipelineCase> every_division();

// The pairs that could meet and do not, as text.
std::vector<std::string> missing_pairs(const std::vector<PipelineCase>& cases);

}  // namespace moetron
