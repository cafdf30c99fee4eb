// What a rank that is a process needs to meet the others: of the gloo and the nccl backend.
#pragma once

#include <chrono>

#include <c10/util/intrusive_ptr.h>

namespace c10d {
class Store;
}

namespace moetron {

struct WorldOptions {
  c10::intrusive_ptr<c10d::Store> store;  // shared by the ranks, and new: no key of another run
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds timeout = std::chrono::minutes(10);       // of a wait for peers
  std::chrono::milliseconds join_timeout = std::chrono::minutes(10);  // for all ranks to come
  bool serves_store = false;        // this process serves it, and leaves last
  bool agent_serves_store = false;  // the launcher does; for messages
};

}  // namespace moetron
