#include "moetron/comm/fake_communicator.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

#include "moetron/comm/operation.h"

namespace moetron {
namespace {

at::Tensor reduce_copies(const at::Tensor& tensor, ReduceOp op, int size) {
  return op == ReduceOp::kSum ? tensor * size : tensor;
}

void exchange_with_copies(const Operation& operation) {
  const at::Tensor output = operation.output.zero_();
  int64_t out = 0;
  int64_t in = 0;
  for (size_t r = 0; r < operation.output_counts.size(); ++r) {
    const int64_t rows = std::min(operation.output_counts[r], operation.input_counts[r]);
    output.narrow(0, out, rows).copy_(operation.input.narrow(0, in, rows));
    out += operation.output_counts[r];
    in += operation.input_counts[r];
  }
}

void imitate(const Operation& operation, int rank, int size) {
  const at::NoGradGuard no_grad;
  const at::Tensor& output = operation.output;
  const at::Tensor& input = operation.input;
  switch (operation.kind) {
    case OperationKind::kAllReduce:
      output.copy_(reduce_copies(output, operation.reduce_op, size));
      return;
    case OperationKind::kAllGather:
      output.view({size, -1}).copy_(input.view({1, -1}).expand({size, input.numel()}));
      return;
    case OperationKind::kReduceScatter:
      output.view({-1}).copy_(
          reduce_copies(input.view({size, output.numel()})[rank], operation.reduce_op, size));
      return;
    case OperationKind::kAllToAllV:
      return exchange_with_copies(operation);
    case OperationKind::kRecv:
      output.zero_();
      return;
    case OperationKind::kBroadcast:
    case OperationKind::kSend:
    case OperationKind::kBarrier:
      return;
  }
}

// A message's: when it is waited for tells what cannot begin before it is done.
class FakeMessage : public PendingWork {
 public:
  FakeMessage(std::shared_ptr<CommLog> log, size_t place) : log_(std::move(log)), place_(place) {}

  void wait() override { log_->at(place_).awaited_at = static_cast<int64_t>(log_->size()); }

 private:
  std::shared_ptr<CommLog> log_;
  size_t place_;
};

class FakeCommunicator : public Communicator {
 public:
  FakeCommunicator(std::shared_ptr<RankContext> rank_context, std::shared_ptr<CommLog> log,
                   std::shared_ptr<Failure> failure, const std::string& group_name, int group_rank,
                   std::vector<int> world_ranks)
      : Communicator(std::move(rank_context), group_name, group_rank, std::move(world_ranks)),
        log_(std::move(log)),
        failure_(std::move(failure)) {}

 private:
  std::shared_ptr<PendingWork> start(std::shared_ptr<Operation> operation) override {
    if (!failure_->reason.empty()) {
      throw make_comm_error(world_rank(), name(), *operation, *failure_, false);
    }
    const int peer = operation->peer < 0 ? -1 : members()[operation->peer];
    log_->push_back({name(), members(), operation_name(operation->kind), operation->bytes(),
                     world_rank(), peer, operation->tag, *operation->phase,
                     operation->bytes_sent(rank(), size()), batch_});
    imitate(*operation, rank(), size());
    const bool is_message =
        operation->kind == OperationKind::kSend || operation->kind == OperationKind::kRecv;
    if (!is_message) return nullptr;
    return std::make_shared<FakeMessage>(log_, log_->size() - 1);
  }

  // The place in the log tells batches of one rank apart, whichever communicator opens them.
  void start_group() override { batch_ = static_cast<int>(log_->size()); }
  void finish_group() override { batch_ = -1; }

  std::unique_ptr<Communicator> make_subgroup(const std::string&, const std::string& group_name,
                                              int group_rank,
                                              std::vector<int> world_ranks) override {
    return std::make_unique<FakeCommunicator>(context(), log_, failure_, group_name, group_rank,
                                              std::move(world_ranks));
  }

  std::unique_ptr<Communicator> make_separate_world(const std::string&) override {
    return make_fake_world(rank(), size(), log_);
  }

  void poison(const std::string& reason) override {
    if (!failure_->reason.empty()) return;
    *failure_ = {world_rank(), concat(describe_rank(world_rank(), phase()), ": ", reason)};
  }

  std::shared_ptr<CommLog> log_;
  std::shared_ptr<Failure> failure_;
  int batch_ = -1;
};

}  // namespace

std::unique_ptr<Communicator> make_fake_world(int rank, int size, std::shared_ptr<CommLog> log) {
  MT_CHECK(rank >= 0 && rank < size, "rank ", rank, " of a world of ", size);
  std::vector<int> members(size);
  std::iota(members.begin(), members.end(), 0);
  return std::make_unique<FakeCommunicator>(std::make_shared<RankContext>(rank), std::move(log),
                                            std::make_shared<Failure>(), "world", rank,
                                            std::move(members));
}

}  // namespace moetron
