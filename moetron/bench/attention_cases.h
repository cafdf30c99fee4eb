// Attention as cases to be timed. FLOPs as published ones are counted: half of the square is
// masked, and the backward is 2.5 times the forward.
#pragma once

#include <cstdint>

#include "moetron/arch/model_config.h"
#include "moetron/bench/kernel_cases.h"

namespace moetron {

// Forward and backward of the model's attention over whole sequences, [batch, seq].
void visit_attention(const CasePlace& place, const ModelConfig& model, int64_t batch, int64_t seq,
                     const VisitCase& visit);
// On a GPU: of packed documents, of log-normal lengths around 600 tokens, beside alike sequences
// with as many pairs of query and key a token; and of sequences that are one document each.
void visit_packed_attention(const CasePlace& place, const ModelConfig& model, int64_t batch,
                            int64_t seq, const VisitCase& visit);

}  // namespace moetron
