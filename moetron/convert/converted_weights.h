// The weights of a model in another type.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "moetron/convert/convert_model.h"

namespace moetron {

// The sources on top of each other that make a model's weights what is written, and its config.
class ConvertedWeights {
 public:
  // `content` outlives this. InputError for a quantization that is not read.
  ConvertedWeights(const ModelContent& content, WeightDtype dtype);

  const TensorSource& weights() const { return *result_; }
  const Json& config() const { return config_; }

 private:
  template <class Source, class... Args>
  const TensorSource* add(Args&&... args) {
    layers_.push_back(std::make_unique<Source>(std::forward<Args>(args)...));
    return layers_.back().get();
  }

  Json config_;
  std::vector<std::unique_ptr<TensorSource>> layers_;
  const TensorSource* result_ = nullptr;
};

}  // namespace moetron
