#include "moetron/comm/communicator.h"

#include <algorithm>
#include <exception>
#include <numeric>

#include <ATen/ATen.h>

#include "moetron/base/hash.h"
#include "moetron/comm/operation.h"

namespace moetron {
namespace {

void check_tensor(const at::Tensor& tensor, const char* what) {
  MT_CHECK(tensor.defined(), what, " is undefined");
  MT_CHECK(tensor.is_contiguous(), what, " is not contiguous");
}

void check_pair(const at::Tensor& output, const at::Tensor& input) {
  check_tensor(output, "output");
  check_tensor(input, "input");
  MT_CHECK(output.scalar_type() == input.scalar_type(), "output is ", output.scalar_type(),
           ", input is ", input.scalar_type());
  MT_CHECK(output.device() == input.device(), "output is on ", output.device(), ", input on ",
           input.device());
}

int64_t sum_counts(std::span<const int64_t> counts, int size, const char* what) {
  MT_CHECK(static_cast<int>(counts.size()) == size, what, " has ", counts.size(),
           " elements in a group of ", size);
  for (int64_t count : counts) MT_CHECK(count >= 0, what, " holds ", count);
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

std::shared_ptr<Operation> make_operation(OperationKind kind, const at::Tensor& output,
                                          const at::Tensor& input = {}) {
  auto operation = std::make_shared<Operation>();
  operation->kind = kind;
  operation->output = output;
  operation->input = input;
  return operation;
}

}  // namespace

CommError::CommError(const std::string& message, int failed_rank, bool first_to_notice)
    : Error(kExitInternal, message), failed_rank_(failed_rank), first_to_notice_(first_to_notice) {}

void Work::wait() {
  if (!pending_) return;
  MT_CHECK(*open_groups_ == 0, "a Work was waited for before group_end()");
  pending_->wait();
  pending_.reset();
}

Communicator::Communicator(std::shared_ptr<RankContext> context, std::string name, int rank,
                           std::vector<int> members)
    : context_(std::move(context)),
      name_(std::move(name)),
      rank_(rank),
      members_(std::move(members)),
      open_groups_(std::make_shared<int>(0)) {
  MT_CHECK(rank_ >= 0 && rank_ < size(), "rank ", rank_, " of a group of ", size());
}

Communicator::~Communicator() = default;

Work Communicator::issue(std::shared_ptr<Operation> operation) {
  {
    std::lock_guard lock(context_->mutex);
    operation->phase = context_->phase;
  }
  return Work(start(std::move(operation)), open_groups_);
}

Work Communicator::all_reduce(const at::Tensor& tensor, ReduceOp op) {
  check_tensor(tensor, "the tensor to reduce");
  auto operation = make_operation(OperationKind::kAllReduce, tensor);
  operation->reduce_op = op;
  return issue(std::move(operation));
}

Work Communicator::all_gather(const at::Tensor& output, const at::Tensor& input) {
  check_pair(output, input);
  MT_CHECK(output.numel() == input.numel() * size(), "all_gather from ", input.numel(),
           " elements on each of ", size(), " ranks to ", output.numel());
  return issue(make_operation(OperationKind::kAllGather, output, input));
}

Work Communicator::reduce_scatter(const at::Tensor& output, const at::Tensor& input, ReduceOp op) {
  check_pair(output, input);
  MT_CHECK(input.numel() == output.numel() * size(), "reduce_scatter from ", input.numel(),
           " elements to ", output.numel(), " on each of ", size(), " ranks");
  auto operation = make_operation(OperationKind::kReduceScatter, output, input);
  operation->reduce_op = op;
  return issue(std::move(operation));
}

Work Communicator::all_to_all_v(const at::Tensor& output, const at::Tensor& input,
                                std::span<const int64_t> output_counts,
                                std::span<const int64_t> input_counts) {
  check_pair(output, input);
  MT_CHECK(
      output.dim() >= 1 && input.dim() >= 1 && output.sizes().slice(1) == input.sizes().slice(1),
      "rows of output ", output.sizes(), " and input ", input.sizes(), " differ");
  const int64_t received = sum_counts(output_counts, size(), "output_counts");
  const int64_t sent = sum_counts(input_counts, size(), "input_counts");
  MT_CHECK(output.size(0) == received && input.size(0) == sent, "output has ", output.size(0),
           " rows and input ", input.size(0), ", but the counts say ", received, " and ", sent);
  auto operation = make_operation(OperationKind::kAllToAllV, output, input);
  operation->output_counts.assign(output_counts.begin(), output_counts.end());
  operation->input_counts.assign(input_counts.begin(), input_counts.end());
  return issue(std::move(operation));
}

Work Communicator::broadcast(const at::Tensor& tensor, int root) {
  check_tensor(tensor, "the tensor to broadcast");
  MT_CHECK(root >= 0 && root < size(), "root ", root, " of a group of ", size());
  auto operation = make_operation(OperationKind::kBroadcast, tensor);
  operation->peer = root;
  return issue(std::move(operation));
}

Work Communicator::send(const at::Tensor& tensor, int peer, int tag) {
  check_tensor(tensor, "the tensor to send");
  MT_CHECK(peer >= 0 && peer < size() && peer != rank_, "send to rank ", peer, " of ", size());
  MT_CHECK(tag >= 0 && tag < (1 << 30), "tag ", tag);
  auto operation = make_operation(OperationKind::kSend, {}, tensor);
  operation->peer = peer;
  operation->tag = tag;
  return issue(std::move(operation));
}

Work Communicator::recv(const at::Tensor& tensor, int peer, int tag) {
  check_tensor(tensor, "the tensor to receive");
  MT_CHECK(peer >= 0 && peer < size() && peer != rank_, "recv from rank ", peer, " of ", size());
  MT_CHECK(tag >= 0 && tag < (1 << 30), "tag ", tag);
  auto operation = make_operation(OperationKind::kRecv, tensor);
  operation->peer = peer;
  operation->tag = tag;
  return issue(std::move(operation));
}

void Communicator::group_begin() {
  if ((*open_groups_)++ == 0) start_group();
}

void Communicator::group_end() {
  MT_CHECK(*open_groups_ > 0, "group_end() without group_begin()");
  if (--*open_groups_ == 0) finish_group();
}

void Communicator::barrier() {
  issue(make_operation(OperationKind::kBarrier, {})).wait();
}

std::unique_ptr<Communicator> Communicator::split(int color, int key, const std::string& name) {
  const at::Tensor mine = at::tensor({int64_t{color}, int64_t{key}}, at::kLong);  // [2]
  const at::Tensor all = at::empty({size(), 2}, at::kLong);                       // [size, 2]
  all_gather(all, mine).wait();
  if (color < 0) return nullptr;
  const int64_t* values = all.const_data_ptr<int64_t>();
  std::vector<int> ranks;
  for (int r = 0; r < size(); ++r) {
    if (values[2 * r] == color) ranks.push_back(r);
  }
  std::stable_sort(ranks.begin(), ranks.end(),
                   [&](int a, int b) { return values[2 * a + 1] < values[2 * b + 1]; });
  return subgroup(ranks, name);
}

std::unique_ptr<Communicator> Communicator::subgroup(const std::vector<int>& ranks,
                                                     const std::string& name) {
  std::vector<int> world_ranks;
  int my_place = -1;
  for (int r : ranks) {
    MT_CHECK(r >= 0 && r < size(), "rank ", r, " of a group of ", size());
    if (r == rank_) my_place = static_cast<int>(world_ranks.size());
    world_ranks.push_back(members_[r]);
  }
  MT_CHECK(my_place >= 0, "rank ", rank_, " is no member of the group \"", name, "\" it makes");
  const std::string group = name + ":" + hash_hex(std::as_bytes(std::span(world_ranks)));
  std::string key = concat(key_, "/", group, "#", num_subgroups_[group]++);
  auto made = make_subgroup(key, name, my_place, std::move(world_ranks));
  made->key_ = std::move(key);
  return made;
}

std::unique_ptr<Communicator> Communicator::separate_world(const std::string& name) {
  MT_CHECK(key_.empty(), "the group \"", name_, "\" makes a world, which the world alone can");
  return make_separate_world(concat(name, "#", num_separate_worlds_++));
}

void Communicator::abort(const std::string& reason) {
  poison(reason);
}

void Communicator::set_phase(const std::string& phase) {
  auto shared = std::make_shared<const std::string>(phase);
  std::lock_guard lock(context_->mutex);
  context_->phase = std::move(shared);
}

std::string Communicator::phase() const {
  std::lock_guard lock(context_->mutex);
  return *context_->phase;
}

PhaseScope::PhaseScope(Communicator& communicator, const std::string& phase)
    : communicator_(communicator),
      previous_(communicator.phase()),
      num_exceptions_(std::uncaught_exceptions()) {
  communicator.set_phase(phase);
}

PhaseScope::~PhaseScope() {
  if (std::uncaught_exceptions() == num_exceptions_) communicator_.set_phase(previous_);
}

}  // namespace moetron
