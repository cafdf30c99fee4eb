// The thread that watches the operations of all NCCL groups of a process: a GPU waits for its peers
// without anyone on the host noticing, and for ever.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "moetron/comm/nccl_group.h"

namespace moetron {

class NcclMonitor {
 public:
  explicit NcclMonitor(std::shared_ptr<ProcessWorld> world);
  ~NcclMonitor();
  NcclMonitor(const NcclMonitor&) = delete;
  NcclMonitor& operator=(const NcclMonitor&) = delete;

  void add(std::shared_ptr<NcclGroup> group);
  void remove(const std::shared_ptr<NcclGroup>& group);

 private:
  void run();
  // Waits a moment. False when it is time to stop.
  bool sleep();
  std::vector<std::shared_ptr<NcclGroup>> groups();

  std::shared_ptr<ProcessWorld> world_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  bool world_failed_ = false;
  std::vector<std::shared_ptr<NcclGroup>> groups_;
  int subscription_;
  std::thread thread_;
};

}  // namespace moetron
