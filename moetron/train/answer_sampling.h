// What a model that is fine-tuned is asked, and how it answers between two steps: whoever can draw
// texts from a model says so, for training does not know how (cli/sample_answers.h).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "moetron/metrics/step_record.h"
#include "moetron/run/run_spec.h"
#include "moetron/train/conversations.h"

namespace moetron {

class Mesh;
class Model;

class AnswerSampler {
 public:
  virtual ~AnswerSampler() = default;
  // Of the model as it is now. Collective; the same on every rank.
  virtual std::vector<SampleAnswer> answer() = 0;
};

struct AnswerSampling {
  // Gets the questions of the data when it is open.
  std::vector<SampleQuestion> questions;
  // Collective; model and mesh outlive what it makes.
  std::function<std::unique_ptr<AnswerSampler>(Model&, Mesh&, const RunSpec&, const Tokenizer&,
                                               const std::vector<SampleQuestion>&)>
      make;
};

}  // namespace moetron
