#include "moetron/comm/nccl_communicator.h"

#include <cstdlib>
#include <exception>
#include <numeric>

#include <ATen/ATen.h>

#include "moetron/comm/gloo_communicator.h"
#include "moetron/comm/local_execution.h"
#include "moetron/comm/nccl_group.h"
#include "moetron/comm/nccl_monitor.h"
#include "moetron/comm/staging.h"

namespace moetron {
namespace {

// c10d reads some of its settings from the environment only.
void configure_c10d() {
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", /*replace=*/1);
  ::setenv("TORCH_NCCL_RETHROW_CUDA_ERRORS", "0", /*replace=*/1);
  // Messages are in one order with all else, as we say ourselves.
  ::setenv("TORCH_NCCL_SHOW_EAGER_INIT_P2P_SERIALIZATION_WARNING", "0", /*replace=*/0);
}

struct NcclWorld {
  explicit NcclWorld(const NcclOptions& nccl_options)
      : options(nccl_options),
        process(std::make_shared<ProcessWorld>(nccl_options.world)),
        monitor(process) {}

  const NcclOptions options;
  std::shared_ptr<ProcessWorld> process;
  NcclMonitor monitor;
};

// The operations between group_begin() and group_end(), or a lone one.
struct Batch {
  std::vector<IssuedOperation> operations;
  c10::intrusive_ptr<c10d::Work> work;  // null where nothing moves
};

class NcclWork : public PendingWork {
 public:
  NcclWork(std::shared_ptr<NcclGroup> group, std::shared_ptr<Operation> operation,
           std::shared_ptr<Batch> batch, bool blocks_host)
      : group_(std::move(group)),
        operation_(std::move(operation)),
        batch_(std::move(batch)),
        blocks_host_(blocks_host) {}

  void wait() override {
    // Where nothing moves, nothing can fail.
    if (batch_->work) group_->wait(*batch_->work, *operation_, blocks_host_);
  }

 private:
  std::shared_ptr<NcclGroup> group_;
  std::shared_ptr<Operation> operation_;
  std::shared_ptr<Batch> batch_;
  bool blocks_host_;
};

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<RankContext> rank_context, std::shared_ptr<NcclWorld> world,
                   const std::string& key, const std::string& group_name, int group_rank,
                   std::vector<int> world_ranks)
      : Communicator(std::move(rank_context), group_name, group_rank, std::move(world_ranks)),
        world_(std::move(world)),
        num_exceptions_(std::uncaught_exceptions()) {
    if (size() == 1 && !world_->options.nccl_for_one) return;
    group_ = std::make_shared<NcclGroup>(world_->process, world_->options, key, name(), rank(),
                                         members(), phase());
    world_->monitor.add(group_);
  }

  ~NcclCommunicator() override {
    if (!group_) return;
    // A rank that an exception ends does not wait for its peers: they may wait for it.
    group_->close(/*orderly=*/std::uncaught_exceptions() == num_exceptions_);
    world_->monitor.remove(group_);
  }

 private:
  std::shared_ptr<PendingWork> start(std::shared_ptr<Operation> operation) override {
    world_->process->check(name(), *operation);
    check_devices(*operation);
    if (!group_) {
      execute_together({operation});
      return nullptr;
    }
    const bool is_barrier = operation->kind == OperationKind::kBarrier;
    if (is_barrier) operation->output = at::zeros({1}, at::device(device()).dtype(at::kByte));
    return run_staged(operation, device(), [&](const std::shared_ptr<Operation>& on_device) {
      return start_on_device(on_device, is_barrier || on_device != operation);
    });
  }

  std::shared_ptr<PendingWork> start_on_device(const std::shared_ptr<Operation>& operation,
                                               bool blocks_host) {
    const bool is_open = open_batch_ != nullptr;
    auto batch = is_open ? open_batch_ : std::make_shared<Batch>();
    if (operation->bytes() > 0) {
      batch->operations.push_back({operation, c10::cuda::getCurrentCUDAStream(device().index())});
    }
    if (!is_open) issue_batch(*batch);
    return std::make_shared<NcclWork>(group_, operation, std::move(batch), blocks_host);
  }

  // The Works own the operations now.
  void issue_batch(Batch& batch) {
    batch.work = group_->issue(batch.operations);
    batch.operations.clear();
  }

  void check_devices(const Operation& operation) const {
    for (const at::Tensor& tensor : {operation.output, operation.input}) {
      MT_CHECK(!tensor.defined() || tensor.is_cpu() || tensor.device() == device(),
               "this rank's NCCL uses ", device(), ", but a tensor lies on ", tensor.device());
    }
  }

  void start_group() override { open_batch_ = std::make_shared<Batch>(); }

  void finish_group() override {
    const auto batch = std::exchange(open_batch_, nullptr);
    if (group_) issue_batch(*batch);
  }

  std::unique_ptr<Communicator> make_subgroup(const std::string& key, const std::string& group_name,
                                              int group_rank,
                                              std::vector<int> world_ranks) override {
    return std::make_unique<NcclCommunicator>(context(), world_, key, group_name, group_rank,
                                              std::move(world_ranks));
  }

  std::unique_ptr<Communicator> make_separate_world(const std::string& key) override {
    return make_separate_gloo_world(world_->options.world, key);
  }

  void poison(const std::string& reason) override {
    const std::string who = describe_rank(world_rank(), phase());
    world_->process->report({world_rank(), concat(who, ": ", reason)}, true);
  }

  c10::Device device() const { return world_->options.device; }

  std::shared_ptr<NcclWorld> world_;
  int num_exceptions_;
  std::shared_ptr<NcclGroup> group_;  // null where a lone rank copies
  std::shared_ptr<Batch> open_batch_;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_world(const NcclOptions& options) {
  const WorldOptions& world = options.world;
  MT_CHECK(world.rank >= 0 && world.rank < world.size, "rank ", world.rank, " of a world of ",
           world.size);
  MT_CHECK(options.device.is_cuda() && options.device.has_index(), "NCCL on ", options.device);
  configure_c10d();
  std::vector<int> members(world.size);
  std::iota(members.begin(), members.end(), 0);
  return std::make_unique<NcclCommunicator>(std::make_shared<RankContext>(world.rank),
                                            std::make_shared<NcclWorld>(options), "", "world",
                                            world.rank, std::move(members));
}

}  // namespace moetron
