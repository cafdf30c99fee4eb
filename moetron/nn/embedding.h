// Token embedding: rows of a table.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

class Parameter;
class SegmentRun;

// tokens [batch, seq] int64, table [vocab, hidden] -> [batch, seq, hidden]
at::Tensor embedding(const at::Tensor& tokens, Parameter& table, SegmentRun& run);

}  // namespace moetron
