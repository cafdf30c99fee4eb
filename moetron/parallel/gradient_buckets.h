// The fp32 gradient accumulators of a rank in flat buckets, so that reducing them over the ranks
// that hold the same parameters is one collective a bucket. With a distributed optimizer (ZeRO
// stage 1: Rajbhandari et al., arXiv 1910.02054) the replicas of a bucket divide its elements: each
// gets the sum of its own stretch only, updates that, and the new values are gathered.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"

namespace moetron {

class Mesh;

struct BucketSettings {
  bool distributed = false;              // divide among the replicas what the optimizer updates
  bool overlap_reduce = false;           // parameters_done() starts what is complete
  bool overlap_gather = false;           // values are waited for as late as they are read
  int64_t bucket_elements = 40'000'000;  // a bucket is full from here on; a parameter is never cut
};

// The part of a parameter that this rank updates. Without a distributed optimizer: all of it.
struct OwnedStretch {
  Parameter* parameter = nullptr;
  int64_t begin = 0;  // first element in the flattened parameter
  at::Tensor value;   // [elements], a view of the parameter's value
  at::Tensor grad;    // [elements] fp32, a view of its accumulator
};

class GradientBuckets {
 public:
  // `parameters` in the order of the forward, the same on every rank of a replica group; what is
  // tied or not trained is left out. Buckets are made from the end, where gradients are complete
  // first, of parameters of the same replicas and dtype.
  GradientBuckets(const std::vector<Parameter*>& parameters, Mesh& mesh,
                  const BucketSettings& settings);
  ~GradientBuckets();

  void clear();  // all accumulators, before a step's first backward

  // Nothing more will be added to these accumulators in this step: with overlap_reduce the buckets
  // that are thereby complete begin to be summed. Every rank calls it in the same order.
  void parameters_done(std::span<Parameter* const> parameters);
  // Sums what parameters_done() has not started, and waits for all. Afterwards OwnedStretch::grad
  // holds sums over the replicas; without a distributed optimizer the whole accumulators do.
  void reduce();

  const std::vector<OwnedStretch>& owned() const { return owned_; }

  // After an update of OwnedStretch::value: gathers the values. With overlap_gather it only starts,
  // in the order of the forward, and wait_values() must come before a parameter is read.
  void gather_values();
  void wait_values(std::span<Parameter* const> parameters);
  void wait_all_values();

 private:
  struct Bucket;
  struct Place {
    Bucket* bucket = nullptr;
    int64_t begin = 0;  // first element in the flat bucket
    bool done = false;  // in this step
  };

  void lay_out(const std::vector<Parameter*>& parameters, Mesh& mesh);
  void move_in(Parameter& parameter, const Place& place);
  void wait_reductions();

  BucketSettings settings_;
  std::vector<std::unique_ptr<Bucket>> buckets_;  // in the order in which backward completes them
  size_t num_started_ = 0;                        // the first so many are being reduced
  std::unordered_map<Parameter*, Place> places_;
  std::unordered_map<const Parameter*, Bucket*> shared_;  // tied uses: where their values lie
  std::vector<Parameter*> tied_;
  std::vector<OwnedStretch> owned_;
};

}  // namespace moetron
