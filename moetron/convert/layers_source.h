// Some layers of a model, as a model of their own.
#pragma once

#include <cstddef>
#include <vector>

#include "moetron/arch/layer_range.h"
#include "moetron/convert/convert_model.h"
#include "moetron/convert/tensor_source.h"

namespace moetron {

// The tensors of those layers under their new numbers, and what is in no layer.
class LayersSource : public TensorSource {
 public:
  // `source` outlives this.
  LayersSource(const TensorSource& source, const LayerRange& range);

  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override {
    source_.read(places_[index], begin, count, bytes);
  }

 private:
  const TensorSource& source_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<size_t> places_;
};

// The config of those layers alone, which keeps the quantization of the weights. ConfigError as
// take_layers().
Json config_of_layers(const Json& config, const LayerRange& range, const std::string& place);

}  // namespace moetron
