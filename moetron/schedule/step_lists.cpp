#include "moetron/schedule/step_lists.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/schedule/message.h"

namespace moetron {

void ListWriter::backward_input(int chunk) {
  const int micro_batch = backward_[static_cast<size_t>(chunk)]++;
  steps_.push_back({{ActionKind::kBackwardInput, chunk, micro_batch}, {}});
  waiting_.push_back({ActionKind::kBackwardWeight, chunk, micro_batch});
}

void ListWriter::backward_weight() {
  MT_CHECK(!waiting_.empty(), "no weight gradient is left to compute");
  steps_.push_back({waiting_.front(), {}});
  waiting_.pop_front();
}

void ListWriter::backward_weight(int chunk) {
  const auto oldest = std::find_if(waiting_.begin(), waiting_.end(),
                                   [&](const Action& action) { return action.chunk == chunk; });
  MT_CHECK(oldest != waiting_.end(), "chunk ", chunk, " has no weight gradient left to compute");
  steps_.push_back({*oldest, {}});
  waiting_.erase(oldest);
}

void ListWriter::forward_and_backward(int forward_chunk, int backward_chunk) {
  const Action forward = next_forward(forward_chunk);
  steps_.push_back({forward, next_backward(backward_chunk)});
}

void place_reductions(StepList& list, int num_chunks) {
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    const auto completes = [&](const Step& step) {
      const auto actions = actions_of(step);
      return std::any_of(actions.begin(), actions.end(), [&](const Action& action) {
        return action.chunk == chunk &&
               (action.kind == ActionKind::kBackward || action.kind == ActionKind::kBackwardWeight);
      });
    };
    const auto after_last = std::find_if(list.rbegin(), list.rend(), completes).base();
    MT_CHECK(after_last != list.begin(), "chunk ", chunk, " has no weight gradient");
    const Action reduce{ActionKind::kReduce, chunk, 0};
    if (Step& last = *std::prev(after_last); last.beside) {
      list.insert(after_last, {reduce, {}});
    } else {
      last.beside = reduce;
    }
  }
}

// Huang et al. 2019: all forwards, then all backwards.
StepList list_gpipe(int, int, int num_micro_batches) {
  ListWriter list;
  for (int i = 0; i < num_micro_batches; ++i) list.forward(0);
  for (int i = 0; i < num_micro_batches; ++i) list.backward(0);
  return list.take();
}

// Narayanan et al. 2019, PipeDream-Flush.
StepList list_1f1b(int num_ranks, int rank, int num_micro_batches) {
  ListWriter list;
  const int warm_up = std::min(num_ranks - 1 - rank, num_micro_batches);
  for (int i = 0; i < warm_up; ++i) list.forward(0);
  while (list.num_forward(0) < num_micro_batches) {
    list.forward(0);
    list.backward(0);
  }
  while (list.num_backward(0) < num_micro_batches) list.backward(0);
  return list.take();
}

// Narayanan et al. 2021 (Megatron-LM): chunks take turns of `num_ranks` micro-batches.
StepList list_interleaved(int num_ranks, int rank, int num_micro_batches, int num_chunks) {
  ListWriter list(num_chunks);
  const int total = num_chunks * num_micro_batches;
  const int warm_up = std::min(2 * (num_ranks - 1 - rank) + (num_chunks - 1) * num_ranks, total);
  const auto chunk_of = [&](int turn) { return turn / num_ranks % num_chunks; };
  for (int i = 0; i < warm_up; ++i) list.forward(chunk_of(i));
  for (int i = 0; i < total; ++i) {
    if (warm_up + i < total) list.forward(chunk_of(warm_up + i));
    list.backward(num_chunks - 1 - chunk_of(i));
  }
  return list.take();
}

// Qi et al. 2023, "Zero Bubble Pipeline Parallelism", H1: rank r keeps r weight gradients for
// later, so that every rank holds as much as the first does under 1F1B, and the tail has something
// to do.
StepList list_zb_h1(int num_ranks, int rank, int num_micro_batches) {
  ListWriter list;
  const int warm_up = std::min(num_ranks - 1 - rank, num_micro_batches);
  for (int i = 0; i < warm_up; ++i) list.forward(0);
  while (list.num_backward(0) < num_micro_batches) {
    if (list.num_forward(0) < num_micro_batches) list.forward(0);
    list.backward_input(0);
    if (list.num_waiting() > rank) list.backward_weight();
  }
  while (list.num_waiting() > 0) list.backward_weight();
  return list.take();
}

// The same authors' V placement of two half-size chunks.
StepList list_zb_v(int num_ranks, int rank, int num_micro_batches) {
  ListWriter list;
  const auto whole_backward = [&](int chunk) {
    list.backward_input(chunk);
    list.backward_weight(chunk);
  };
  for (int i = 0; i < 2 * (num_ranks - rank) - 1; ++i) list.forward(0);
  for (int i = 0; i < rank; ++i) {
    list.forward(1);
    list.forward(0);
  }
  for (int i = 0; i < num_ranks - rank; ++i) {
    list.forward(1);
    whole_backward(1);
  }
  while (list.num_forward(1) < num_micro_batches) {
    if (list.num_forward(0) < num_micro_batches) list.forward(0);
    whole_backward(0);
    list.forward(1);
    whole_backward(1);
  }
  for (int i = 0; i < rank; ++i) {
    list.backward_input(0);
    list.backward_input(1);
  }
  for (int i = 0; i < num_ranks - rank; ++i) {
    list.backward_input(0);
    list.backward_weight(0);
  }
  while (list.num_waiting() > 0) list.backward_weight();
  return list.take();
}

// DeepSeek-AI 2025, DualPipeV: the phases of its reference, with its counts.
StepList list_dualpipev(int num_ranks, int rank, int num_micro_batches) {
  return list_v_of_pairs(num_ranks, rank, num_micro_batches, /*pairs_all=*/false);
}

StepList list_v_of_pairs(int num_ranks, int rank, int num_micro_batches, bool pairs_all) {
  ListWriter list;
  const int below = num_ranks - 1 - rank;  // ranks further down
  for (int i = 0; i < 2 * below; ++i) list.forward(0);
  for (int i = 0; i <= rank; ++i) {
    list.forward(0);
    list.forward(1);
  }
  for (int i = 0; i < below; ++i) {
    list.backward_input(1);
    list.backward_weight();
    list.forward(1);
  }
  for (int i = 0; i < num_micro_batches - 2 * num_ranks + rank + 1; ++i) {
    if (i == 0 && below == 0 && !pairs_all) {
      list.forward(0);
      list.backward(1);
    } else {
      list.forward_and_backward(0, 1);
    }
    list.forward_and_backward(1, 0);
  }
  for (int i = 0; i < below; ++i) {
    list.backward(1);
    list.forward_and_backward(1, 0);
  }
  // The last rank + 1 of these leave their weight gradients to the tail.
  for (int i = 0; i < 2 * (rank + 1); ++i) {
    if (i <= rank) {
      list.backward(1 - i % 2);
    } else {
      list.backward_input(1 - i % 2);
    }
  }
  for (int i = 0; i < below; ++i) {
    list.backward_weight();
    list.backward_input(0);
  }
  while (list.num_waiting() > 0) list.backward_weight();
  return list.take();
}

// In a loop the chunks take turns of as many micro-batches as there are ranks. In a V a rank takes
// micro-batches through chunk 0 as they come, and each through chunk 1 as many turns later as there
// are stages between the two: when it has come around.
StepList list_forwards(const Placement& placement, int rank, int num_micro_batches) {
  ListWriter list(placement.num_chunks());
  const bool is_v = placement.shape() == Placement::Shape::kV;
  const int between = is_v ? placement.stage(rank, 1) - placement.stage(rank, 0) : 0;
  const int turn = is_v ? 1 : placement.num_ranks();
  for (int i = 0; i < num_micro_batches + between; i += turn) {
    const int end = std::min(i + turn, num_micro_batches);
    while (list.num_forward(0) < end) list.forward(0);
    const int end_behind = std::min(i + turn - between, num_micro_batches);
    for (int chunk = 1; chunk < placement.num_chunks(); ++chunk) {
      while (list.num_forward(chunk) < end_behind) list.forward(chunk);
    }
  }
  return list.take();
}

}  // namespace moetron
