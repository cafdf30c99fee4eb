#include "moetron/comm/gloo_link.h"

#include <cstdlib>

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Gloo's first sentence; advice for its own users follows it.
std::string symptom_of(const std::exception& error) {
  const std::string line = first_line(error);
  return line.substr(0, line.find(". "));
}

std::vector<at::Tensor> view_bytes(const Message& message) {
  return {at::from_blob(message.data, {message.bytes}, at::kByte)};
}

}  // namespace

GlooDevice open_gloo_device() {
  const char* names = std::getenv("GLOO_SOCKET_IFNAME");
  if (!names || !*names) return c10d::ProcessGroupGloo::createDefaultDevice();
  const std::string first = std::string(names).substr(0, std::string(names).find(','));
  try {
    return c10d::ProcessGroupGloo::createDeviceForInterface(first);
  } catch (const std::exception& error) {
    throw ConfigError(concat("the environment variable GLOO_SOCKET_IFNAME (\"", names,
                             "\") names no network interface of this host: ", first_line(error)));
  }
}

GlooLink::GlooLink(const WorldOptions& world, const GlooDevice& device, const std::string& key,
                   int rank, int size)
    : rank_(rank), size_(size), timeout_(world.timeout) {
  // Its own time-out serves to connect; each wait here brings its own.
  auto options = c10d::ProcessGroupGloo::Options::create(world.join_timeout);
  options->devices.push_back(device);
  options->threads = 1;  // for Gloo's own collectives, which are not used
  auto store = c10::make_intrusive<c10d::PrefixStore>(concat("gloo", key), world.store);
  group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, std::move(options));
}

GlooLink::~GlooLink() = default;

Transfer GlooLink::send(const Message& message, int peer, int tag) {
  if (message.bytes == 0) return {};
  std::vector<at::Tensor> bytes = view_bytes(message);
  std::lock_guard lock(issue_mutex_);
  try {
    return {group_->send(bytes, peer, tag), peer};
  } catch (const std::exception& error) {
    throw TransferError(peer, symptom_of(error));
  }
}

Transfer GlooLink::recv(const Message& message, int peer, int tag) {
  if (message.bytes == 0) return {};
  std::vector<at::Tensor> bytes = view_bytes(message);
  std::lock_guard lock(issue_mutex_);
  try {
    return {group_->recv(bytes, peer, tag), peer};
  } catch (const std::exception& error) {
    throw TransferError(peer, symptom_of(error));
  }
}

void GlooLink::wait(const Transfer& transfer) {
  if (!transfer.work) return;
  std::list<c10::intrusive_ptr<c10d::Work>>::iterator place;
  {
    std::lock_guard lock(waiting_mutex_);
    if (aborted_) throw TransferError(transfer.peer, "another rank failed");
    place = waiting_.insert(waiting_.end(), transfer.work);
  }
  std::string symptom;
  try {
    if (!transfer.work->wait(timeout_)) symptom = "another rank failed";
  } catch (const std::exception& error) {
    symptom = symptom_of(error);
  }
  std::lock_guard lock(waiting_mutex_);
  waiting_.erase(place);
  if (!symptom.empty()) throw TransferError(transfer.peer, symptom);
}

void GlooLink::exchange(const std::vector<Message>& outgoing,
                        const std::vector<Message>& incoming) {
  const int tag = kFirstCollectiveTag | (num_rounds_++ & (kFirstCollectiveTag - 1));
  std::vector<Transfer> transfers;
  for (int r = 0; r < size_; ++r) {
    if (r != rank_) transfers.push_back(recv(incoming[r], r, tag));
  }
  // Each rank starts with its neighbour, so that not all send to rank 0 first.
  for (int i = 1; i < size_; ++i) {
    const int r = (rank_ + i) % size_;
    transfers.push_back(send(outgoing[r], r, tag));
  }
  // Receives first, in rank order: the first that fails is from a rank that did not come.
  for (const Transfer& transfer : transfers) wait(transfer);
}

void GlooLink::abort() {
  std::lock_guard lock(waiting_mutex_);
  aborted_ = true;
  for (const auto& work : waiting_) work->abort();
}

}  // namespace moetron
