#include "moetron/train/receipt_meter.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <set>
#include <sstream>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/checkpoint/global_tensors.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

constexpr int64_t kGrain = int64_t{1} << 15;  // elements

// Where row `row` of the slice begins in the flattened whole tensor; a row is along the last
// dimension.
int64_t begin_of_row(const NamedSlice& slice, int64_t row) {
  const at::IntArrayRef sizes = slice.view.sizes();
  int64_t index = slice.begin.back(), stride = slice.global_shape.back();
  for (size_t dim = sizes.size() - 1; dim-- > 0;) {
    index += (slice.begin[dim] + row % sizes[dim]) * stride;
    row /= sizes[dim];
    stride *= slice.global_shape[dim];
  }
  return index;
}

bool comes_first(const std::string& a, const std::string& b) {
  return comes_before(a, b);
}

std::string listed(const std::vector<std::string>& names, const char* kind) {
  std::string text;
  for (const std::string& name : names) text += concat(kind, ' ', name, '\n');
  return text;
}

}  // namespace

uint64_t slice_hash(const NamedSlice& slice) {
  const at::Tensor values = slice.view.to(at::kCPU, at::kFloat).contiguous();
  if (values.numel() == 0) return 0;
  const float* data = values.const_data_ptr<float>();
  const int64_t width = values.size(-1);
  std::atomic<uint64_t> total = 0;
  at::parallel_for(0, values.numel(), kGrain, [&](int64_t first, int64_t last) {
    uint64_t sum = 0;
    for (int64_t begin = first; begin < last;) {
      const int64_t row = begin / width;
      const int64_t end = std::min(last, (row + 1) * width);
      const auto shift = static_cast<uint64_t>(begin_of_row(slice, row) - row * width);
      for (int64_t i = begin; i < end; ++i) {
        sum += element_hash(shift + static_cast<uint64_t>(i), std::bit_cast<uint32_t>(data[i]));
      }
      begin = end;
    }
    total += sum;
  });
  return total;
}

ReceiptMeter::ReceiptMeter(const Model& model, Mesh& mesh, const std::vector<OwnedStretch>& trained,
                           bool distributed)
    : world_(mesh.world()) {
  const auto add = [](std::vector<NamedSlice> slices, std::vector<Part>& parts) {
    for (NamedSlice& slice : slices) parts.push_back({std::move(slice)});
  };
  for (const OwnedStretch& stretch : trained) {
    const Parameter& parameter = *stretch.parameter;
    if (!distributed && !mesh.is_first_replica(parameter.settings().replicas)) continue;
    add(parameter.slices_of_stretch(stretch.grad, stretch.begin), gradients_);
    add(parameter.slices_of_stretch(stretch.value, stretch.begin), parameters_);
  }
  for (const Parameter* parameter : model.parameters()) {
    const bool is_trained = parameter->role() == Role::kTrained;
    if (is_trained || !mesh.is_first_replica(parameter->settings().replicas)) continue;
    add(parameter->slices(parameter->value()), parameters_);  // none of a copy
  }

  const auto names_of = [](const std::vector<Part>& parts) {
    std::set<std::string> names;
    for (const Part& part : parts) names.insert(part.slice.name);
    return std::vector(names.begin(), names.end());
  };
  std::set<std::string, decltype(&comes_first)> gradients(comes_first), parameters(comes_first);
  for (const std::string& text : gather_texts(
           world_, listed(names_of(gradients_), "g") + listed(names_of(parameters_), "p"))) {
    std::istringstream lines(text);
    for (std::string kind, name; lines >> kind >> name;) {
      (kind == "g" ? gradients : parameters).insert(name);
    }
  }
  gradient_names_.assign(gradients.begin(), gradients.end());
  parameter_names_.assign(parameters.begin(), parameters.end());
  give_places(gradients_, gradient_names_);
  give_places(parameters_, parameter_names_);
  sums_ = at::zeros({static_cast<int64_t>(gradient_names_.size() + parameter_names_.size())},
                    at::kLong);
}

void ReceiptMeter::give_places(std::vector<Part>& parts, const std::vector<std::string>& names) {
  for (Part& part : parts) {
    const auto place = std::lower_bound(names.begin(), names.end(), part.slice.name, comes_first);
    part.place = static_cast<size_t>(place - names.begin());
  }
}

void ReceiptMeter::hash(const std::vector<Part>& parts, size_t offset) {
  int64_t* sums = sums_.mutable_data_ptr<int64_t>();
  for (const Part& part : parts) {
    int64_t& sum = sums[offset + part.place];
    sum = static_cast<int64_t>(static_cast<uint64_t>(sum) + slice_hash(part.slice));
  }
}

void ReceiptMeter::take_gradients() {
  sums_.zero_();
  hash(gradients_, 0);
}

BitReceipt ReceiptMeter::finish(double loss, double aux_loss) {
  hash(parameters_, gradient_names_.size());
  world_.all_reduce(sums_).wait();
  BitReceipt receipt;
  receipt.loss = element_hash(0, std::bit_cast<uint64_t>(loss)) +
                 element_hash(1, std::bit_cast<uint64_t>(aux_loss));
  const int64_t* sum = sums_.const_data_ptr<int64_t>();
  const auto take = [&](const std::vector<std::string>& names, std::vector<NamedHash>& hashes) {
    for (const std::string& name : names) hashes.push_back({name, static_cast<uint64_t>(*sum++)});
  };
  take(gradient_names_, receipt.gradients);
  take(parameter_names_, receipt.parameters);
  return receipt;
}

}  // namespace moetron
