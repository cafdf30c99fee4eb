#include "moetron/comm/nccl_group.h"

#include <algorithm>
#include <thread>

#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "moetron/comm/nccl_operations.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using WorkNccl = c10d::ProcessGroupNCCL::WorkNCCL;

// c10d also times operations, only to log them: ours should be the first to notice.
constexpr std::chrono::minutes kGraceOfC10d{1};

std::string describe_exception(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& error) {
    return first_line(error);
  }
}

}  // namespace

NcclGroup::NcclGroup(std::shared_ptr<ProcessWorld> world, const NcclOptions& options,
                     const std::string& key, const std::string& name, int rank,
                     const std::vector<int>& members, const std::string& phase)
    : world_(std::move(world)), name_(name), members_(members) {
  try {
    connect(options, key, rank);
  } catch (const std::exception& error) {
    close(false);
    throw explain_connect_error(*world_, phase, name_, error);
  }
}

NcclGroup::~NcclGroup() {
  close(false);
}

void NcclGroup::connect(const NcclOptions& options, const std::string& key, int rank) {
  auto store = c10::make_intrusive<c10d::PrefixStore>(concat("nccl", key), world_->options().store);
  exchange(*store, rank, "came", "1");  // NCCL would wait for ever for a rank that does not come
  auto settings = c10d::ProcessGroupNCCL::Options::create();
  settings->timeout = world_->options().timeout + kGraceOfC10d;
  settings->config.blocking = 1;
  if (options.tuning.max_ctas > 0) settings->config.maxCTAs = options.tuning.max_ctas;
  settings->group_name = key.empty() ? "world" : key;
  settings->global_ranks_in_group.assign(members_.begin(), members_.end());
  group_ = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      store, rank, static_cast<int>(members_.size()), std::move(settings));
  group_->setBoundDeviceId(options.device);
  // Now, for then messages use this communicator too, where they would else make one for each pair.
  group_->eagerConnectSingleDevice(options.device);
  if (!options.tuning.peer_copies || key.empty()) return;  // little goes to the whole world at once
  const auto tell = [&](const std::string& topic, const std::string& mine) {
    return exchange(*store, rank, topic, mine);
  };
  peers_ = PeerCopies::connect(tell, rank, static_cast<int>(members_.size()), options.device);
}

std::vector<std::string> NcclGroup::exchange(c10d::Store& store, int rank, const std::string& name,
                                             const std::string& mine) const {
  std::vector<std::string> keys;
  for (size_t r = 0; r < members_.size(); ++r) keys.push_back(concat(name, "/", r));
  store.set(keys[rank], mine);
  const auto begin = steady_clock::now();
  while (true) {
    if (world_->failure()) throw std::runtime_error("the world has failed");
    if (store.check(keys)) break;
    if (steady_clock::now() - begin >= world_->options().join_timeout) {
      std::string missing;
      for (size_t r = 0; r < members_.size(); ++r) {
        if (!store.check({keys[r]})) missing += concat(missing.empty() ? "" : ", ", members_[r]);
      }
      throw std::runtime_error(concat("rank ", missing, " did not come within ",
                                      world_->options().join_timeout.count() / 1000.0, " s"));
    }
    std::this_thread::sleep_for(milliseconds(10));
  }
  std::vector<std::string> said;
  for (const std::string& key : keys) said.push_back(store.get_to_str(key));
  return said;
}

bool NcclGroup::goes_by_peer_copies(const std::vector<IssuedOperation>& operations) const {
  return peers_ && std::ranges::all_of(operations, [](const IssuedOperation& issued) {
           return PeerCopies::takes(*issued.operation);
         });
}

c10::intrusive_ptr<c10d::Work> NcclGroup::issue(const std::vector<IssuedOperation>& operations) {
  if (operations.empty()) return {};
  const Operation& first = *operations[0].operation;
  world_->check(name_, first);
  try {
    if (goes_by_peer_copies(operations)) return peers_->issue(operations);
    auto work = issue_together(operations);
    std::vector<std::shared_ptr<Operation>> sends;
    for (const IssuedOperation& issued : operations) {
      if (issued.operation->kind == OperationKind::kSend) sends.push_back(issued.operation);
    }
    std::lock_guard lock(mutex_);
    outstanding_.emplace_back(dynamic_cast<WorkNccl&>(*work), std::move(sends), first.kind,
                              first.phase, steady_clock::now());
    return work;
  } catch (const std::exception& error) {
    throw explain(first, error);
  }
}

c10::intrusive_ptr<c10d::Work> NcclGroup::issue_together(
    const std::vector<IssuedOperation>& operations) {
  if (operations.size() == 1) {
    const c10::cuda::CUDAStreamGuard guard(operations[0].stream);
    return issue_on_nccl(*group_, *operations[0].operation);
  }
  group_->startCoalescing();
  for (const IssuedOperation& issued : operations) {
    const c10::cuda::CUDAStreamGuard guard(issued.stream);
    issue_on_nccl(*group_, *issued.operation);
  }
  return group_->endCoalescing();
}

void NcclGroup::wait(c10d::Work& work, const Operation& operation, bool blocks_host) const {
  world_->check(name_, operation);
  try {
    while (blocks_host && !work.isCompleted()) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      world_->check(name_, operation);
    }
    work.wait();
  } catch (const CommError&) {
    throw;
  } catch (const std::exception& error) {
    throw explain(operation, error);
  }
}

std::string NcclGroup::describe_trouble(const std::string& phase, OperationKind kind,
                                        const std::string& trouble) const {
  return concat(describe_rank(world_->options().rank, phase), " in ", operation_name(kind),
                " of group \"", name_, "\" (", trouble, ")");
}

// An error of NCCL may well come from another rank; any other is our own.
CommError NcclGroup::explain(const Operation& operation, const std::exception& error) const {
  const bool is_ours = dynamic_cast<const c10::DistBackendError*>(&error) == nullptr;
  const int rank = world_->options().rank;
  const std::string symptom = describe_trouble(*operation.phase, operation.kind, first_line(error));
  const ProcessWorld::Verdict verdict = world_->report({is_ours ? rank : -1, symptom}, is_ours);
  return make_comm_error(rank, name_, operation, verdict.failure, verdict.first_to_notice);
}

std::optional<std::string> NcclGroup::find_fault(milliseconds timeout) {
  try {
    const auto oldest = peers_ ? peers_->oldest() : std::nullopt;
    if (oldest && steady_clock::now() - oldest->since >= timeout) {
      return describe_trouble(*oldest->phase, oldest->kind,
                              concat("timed out after ", timeout.count() / 1000.0, " s"));
    }
  } catch (const std::exception& error) {
    return describe_trouble("", OperationKind::kBarrier, first_line(error));
  }
  std::lock_guard lock(mutex_);
  while (!outstanding_.empty()) {
    Outstanding& oldest = outstanding_.front();
    std::string trouble;
    try {
      const bool is_completed = oldest.work.isCompleted();
      if (is_completed && !oldest.work.exception()) {
        outstanding_.pop_front();
        last_progress_ = steady_clock::now();
        continue;
      }
      if (is_completed) trouble = describe_exception(oldest.work.exception());
    } catch (const std::exception& error) {
      trouble = first_line(error);
    }
    const auto since = std::max(oldest.since, last_progress_);
    if (trouble.empty() && steady_clock::now() - since >= timeout) {
      trouble = concat("timed out after ", timeout.count() / 1000.0, " s");
    }
    if (trouble.empty()) return std::nullopt;
    return describe_trouble(*oldest.phase, oldest.kind, trouble);
  }
  return std::nullopt;
}

bool NcclGroup::has_outstanding() {
  if (peers_ && peers_->oldest()) return true;
  std::lock_guard lock(mutex_);
  return !outstanding_.empty();
}

void NcclGroup::abort() {
  if (closed_.exchange(true) || !group_) return;
  if (peers_) peers_->release();
  try {
    group_->abort();
  } catch (const std::exception&) {
    // The world has failed already: there is nobody to tell, and the process leaves.
  }
}

void NcclGroup::close(bool orderly) {
  if (orderly && peers_ && !world_->failure() && !closed_) {
    peers_->issue_farewell(std::make_shared<const std::string>("the end"));
  }
  // The watching thread removes what is done, and ends the world if something never is.
  while (orderly && !world_->failure() && has_outstanding()) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  if (!orderly || world_->failure()) return abort();
  if (closed_.exchange(true)) return;
  try {
    group_->shutdown();
  } catch (const std::exception&) {
    // All operations are done. Whoever still needs this rank learns it from an error of its own.
  }
}

}  // namespace moetron
