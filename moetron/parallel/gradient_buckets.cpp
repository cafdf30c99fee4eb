#include "moetron/parallel/gradient_buckets.h"

#include <algorithm>
#include <map>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/comm/communicator.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

// Every parameter, and every rank's part of a bucket, begins at a multiple of so many elements:
// matrix kernels want aligned weights, collectives aligned messages.
constexpr int64_t kAlignment = 64;

int64_t rounded_up(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

}  // namespace

struct GradientBuckets::Bucket {
  Communicator* replicas = nullptr;
  at::TensorOptions options;  // of the values
  int64_t num_elements = 0;   // with the padding between and behind parameters
  int64_t first_use = 0;      // least place of its parameters in the forward's order
  size_t num_parameters = 0;
  size_t num_done = 0;
  at::Tensor grads;   // [elements] fp32
  at::Tensor values;  // [elements]; undefined unless divided among the replicas
  Work reduction;
  Work gathering;

  bool divided() const { return values.defined(); }
  int64_t own_size() const { return num_elements / replicas->size(); }
  // This rank's part of a flat tensor: [elements / size].
  at::Tensor own(const at::Tensor& flat) const {
    return flat.narrow(0, replicas->rank() * own_size(), own_size());
  }

  void start_reduction() {
    if (replicas->size() == 1) return;
    reduction = divided() ? replicas->reduce_scatter(own(grads), grads)  // in place
                          : replicas->all_reduce(grads);
  }
};

GradientBuckets::GradientBuckets(const std::vector<Parameter*>& parameters, Mesh& mesh,
                                 const BucketSettings& settings)
    : settings_(settings) {
  lay_out(parameters, mesh);
  for (const std::unique_ptr<Bucket>& bucket : buckets_) {
    const bool divided = settings.distributed && bucket->replicas->size() > 1;
    if (divided) {
      bucket->num_elements =
          rounded_up(bucket->num_elements, kAlignment * bucket->replicas->size());
      bucket->values = at::zeros({bucket->num_elements}, bucket->options);
    }
    bucket->grads = at::zeros({bucket->num_elements}, bucket->options.dtype(at::kFloat));
  }
  for (Parameter* parameter : parameters) {
    const auto place = places_.find(parameter);
    if (place != places_.end()) move_in(*parameter, place->second);
  }
}

GradientBuckets::~GradientBuckets() = default;

// Which parameter lies where, from the end of the list; storage comes later.
void GradientBuckets::lay_out(const std::vector<Parameter*>& parameters, Mesh& mesh) {
  std::map<std::pair<ReplicaRule, at::ScalarType>, Bucket*> open;
  for (size_t i = parameters.size(); i-- > 0;) {
    Parameter* parameter = parameters[i];
    if (parameter->is_tied()) tied_.push_back(parameter);
    if (parameter->is_tied() || parameter->role() != Role::kTrained) continue;
    const at::Tensor& value = parameter->value();
    MT_CHECK(value.is_contiguous(), parameter->label(), " is not contiguous");
    Bucket*& bucket = open[{parameter->settings().replicas, value.scalar_type()}];
    if (bucket == nullptr) {
      bucket = buckets_.emplace_back(std::make_unique<Bucket>()).get();
      bucket->replicas = &mesh.replicas(parameter->settings().replicas);
      bucket->options = value.options();
    }
    const bool is_new = places_.try_emplace(parameter, Place{bucket, bucket->num_elements}).second;
    MT_CHECK(is_new, parameter->label(), " is listed twice");
    bucket->num_elements += rounded_up(value.numel(), kAlignment);
    bucket->first_use = static_cast<int64_t>(i);
    ++bucket->num_parameters;
    if (bucket->num_elements >= settings_.bucket_elements) bucket = nullptr;
  }
  // A bucket is complete with the gradients of its first parameter.
  std::sort(buckets_.begin(), buckets_.end(),
            [](const auto& a, const auto& b) { return a->first_use > b->first_use; });
  for (const Parameter* use : tied_) {
    for (const auto& [owner, place] : places_) {
      if (owner->value().is_same(use->value())) shared_[use] = place.bucket;
    }
  }
}

// Moves accumulator and, where the bucket is divided, value into the bucket; notes what this rank
// owns of them.
void GradientBuckets::move_in(Parameter& parameter, const Place& place) {
  const Bucket& bucket = *place.bucket;
  const at::IntArrayRef shape = parameter.value().sizes();
  const int64_t count = parameter.value().numel();
  const at::Tensor grad = bucket.grads.narrow(0, place.begin, count);
  parameter.set_grad_storage(grad.view(shape));
  int64_t begin = 0, end = count;  // in the parameter
  if (bucket.divided()) {
    parameter.set_value_storage(bucket.values.narrow(0, place.begin, count).view(shape));
    const int64_t own_begin = bucket.replicas->rank() * bucket.own_size();
    begin = std::clamp<int64_t>(own_begin - place.begin, 0, count);
    end = std::clamp<int64_t>(own_begin + bucket.own_size() - place.begin, 0, count);
  }
  if (begin == end) return;
  const at::Tensor value = parameter.value().view({count});
  owned_.push_back({&parameter, begin, value.slice(0, begin, end), grad.slice(0, begin, end)});
}

void GradientBuckets::clear() {
  wait_reductions();  // of a step that was given up
  for (const auto& [parameter, place] : places_) parameter->clear_grad();
  for (Parameter* parameter : tied_) parameter->clear_grad();
}

void GradientBuckets::parameters_done(std::span<Parameter* const> parameters) {
  if (!settings_.overlap_reduce) return;
  for (Parameter* parameter : parameters) {
    const auto found = places_.find(parameter);
    if (found == places_.end()) continue;
    parameter->settle_grad();
    MT_CHECK(!found->second.done, parameter->label(), " is done twice in one step");
    found->second.done = true;
    ++found->second.bucket->num_done;
  }
  // In the order of the buckets alone, which is the same on every rank.
  while (num_started_ < buckets_.size() &&
         buckets_[num_started_]->num_done == buckets_[num_started_]->num_parameters) {
    buckets_[num_started_++]->start_reduction();
  }
}

void GradientBuckets::reduce() {
  for (const auto& [parameter, place] : places_) {
    if (!place.done) parameter->settle_grad();
  }
  while (num_started_ < buckets_.size()) buckets_[num_started_++]->start_reduction();
  wait_reductions();
}

void GradientBuckets::wait_reductions() {
  for (const std::unique_ptr<Bucket>& bucket : buckets_) {
    bucket->reduction.wait();
    bucket->num_done = 0;
  }
  for (auto& [parameter, place] : places_) place.done = false;
  num_started_ = 0;
}

void GradientBuckets::gather_values() {
  for (const auto& [parameter, place] : places_) {
    if (place.bucket->divided()) parameter->value_changed();
  }
  // The last bucket to be complete in backward is the first that forward needs.
  for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket) {
    if (!(*bucket)->divided()) continue;
    const at::Tensor& values = (*bucket)->values;
    (*bucket)->gathering = (*bucket)->replicas->all_gather(values, (*bucket)->own(values));
  }
  if (!settings_.overlap_gather) wait_all_values();
}

void GradientBuckets::wait_values(std::span<Parameter* const> parameters) {
  for (Parameter* parameter : parameters) {
    if (const auto found = places_.find(parameter); found != places_.end()) {
      found->second.bucket->gathering.wait();
    } else if (const auto tied = shared_.find(parameter); tied != shared_.end()) {
      tied->second->gathering.wait();
    }
  }
}

void GradientBuckets::wait_all_values() {
  for (const std::unique_ptr<Bucket>& bucket : buckets_) bucket->gathering.wait();
}

}  // namespace moetron
