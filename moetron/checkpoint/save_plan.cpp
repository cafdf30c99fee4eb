#include "moetron/checkpoint/save_plan.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/checkpoint/choose_writers.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/global_tensors.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"

namespace moetron {
namespace {

std::string digest(const std::string& text) {
  return hash_hex(std::as_bytes(std::span(text.data(), text.size())));
}

// Weights and states apart: a tensor of the one must not pass for one of the other.
std::string digest_of(const std::string& weights, const std::string& states) {
  return digest(digest(weights) + digest(states));
}

std::vector<std::string> from_all(const std::string& mine, Communicator* world) {
  if (world == nullptr || world->size() == 1) return {mine};
  return gather_texts(*world, mine);
}

}  // namespace

SavePlan::SavePlan(std::vector<TensorFile> files, std::string layout, int rank, int num_ranks)
    : files_(std::move(files)),
      blocks_(files_),
      writers_(choose_writers(blocks_, num_ranks)),
      blocks_of_(static_cast<size_t>(num_ranks)),
      given_{0},
      layout_(std::move(layout)),
      rank_(rank),
      num_ranks_(num_ranks) {
  for (uint64_t index = 0; index < num_blocks(); ++index) {
    const FileBlock next = block(index);
    const auto writer = static_cast<size_t>(next.writer);
    const std::vector<uint64_t> given = moetron::bytes_given(next, num_ranks);
    blocks_of_[writer].push_back(index);
    given_.push_back(given_.back() + given[static_cast<size_t>(rank)]);
    bytes_ += next.bytes();
    bytes_crossing_ += std::accumulate(given.begin(), given.end(), uint64_t{0}) - given[writer];
  }
}

std::string layout_of(const CheckpointContent& content) {
  return digest_of(describe_slices(content.weights), describe_slices(content.states));
}

SavePlan plan_save(const CheckpointContent& content, Communicator* world,
                   const SaveSettings& settings) {
  std::string my_weights, my_states;
  on_all_ranks(world, [&] {
    my_weights = describe_slices(content.weights);
    my_states = describe_slices(content.states);
    return 0;
  });
  const std::vector<GlobalTensor> weights = find_global_tensors(from_all(my_weights, world));
  const std::vector<GlobalTensor> states = find_global_tensors(from_all(my_states, world));
  std::vector<TensorFile> files = content.is_adapter
                                      ? std::vector{plan_adapter_file(weights)}
                                      : plan_model_files(weights, settings.shard_bytes);
  files.push_back(plan_state_file(states));
  return {std::move(files), digest_of(my_weights, my_states), world != nullptr ? world->rank() : 0,
          world != nullptr ? world->size() : 1};
}

bool plan_fits(const SavePlan& plan, const CheckpointContent& content, Communicator* world) {
  const std::vector<int64_t> fits = on_all_ranks(world, [&] {
    const bool same_ranks = plan.num_ranks() == (world != nullptr ? world->size() : 1) &&
                            plan.rank() == (world != nullptr ? world->rank() : 0);
    return int64_t{same_ranks && plan.layout() == layout_of(content)};
  });
  return std::all_of(fits.begin(), fits.end(), [](int64_t fit) { return fit == 1; });
}

}  // namespace moetron
