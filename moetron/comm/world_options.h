// What a rank that is a process needs to meet the others: of the gloo and the nccl backend.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include <c10/util/intrusive_ptr.h>

namespace c10d {
class Store;
}

namespace moetron {

// What a rank says of itself where ranks meet, before any of them waits for another's messages:
// what all must agree on. Rank 0 compares; `difference` returns a sentence that names what differs,
// both values and ranks, and nothing where the two agree.
struct Greeting {
  std::string text;
  std::function<std::string(const std::string& mine, const std::string& other, int rank)>
      difference;  // null: the texts do not matter
};

// Of the nccl backend.
struct NcclTuning {
  int max_ctas = 0;  // thread blocks that a collective may occupy; 0: NCCL's choice
  // Groups whose GPUs can write to each other's memory gather, sum and exchange by copy engines
  // (peer_copies.h) instead of NCCL's kernels.
  bool peer_copies = false;
};

struct WorldOptions {
  c10::intrusive_ptr<c10d::Store> store;  // shared by the ranks, and new: no key of another run
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds timeout = std::chrono::minutes(10);       // of a wait for peers
  std::chrono::milliseconds join_timeout = std::chrono::minutes(10);  // for all ranks to come
  bool serves_store = false;        // this process serves it, and leaves last
  bool agent_serves_store = false;  // the launcher does; for messages
  Greeting greeting;
};

}  // namespace moetron
