// Some of a source's tensors, maybe under other names.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "moetron/convert/tensor_source.h"

namespace moetron {

// Whoever derives from this chooses.
class ChosenTensors : public TensorSource {
 public:
  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override {
    source_.read(places_[index], begin, count, bytes);
  }

 protected:
  // `source` outlives this.
  explicit ChosenTensors(const TensorSource& source) : source_(source) {}

  const std::vector<SafetensorsTensor>& all() const { return source_.tensors(); }
  // The source's tensor `place`, as `tensor` calls it.
  void choose(size_t place, SafetensorsTensor tensor) {
    tensors_.push_back(std::move(tensor));
    places_.push_back(place);
  }

 private:
  const TensorSource& source_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<size_t> places_;
};

}  // namespace moetron
