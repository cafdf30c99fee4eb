// A communicator without peers: it records every operation and gives plausible results at once.
// For planning, and for checks of the order of operations.
//
// Results, as if every peer held what this rank holds: a reduction of `size` equal inputs, a gather
// of `size` copies; all_to_all_v receives from rank r what this rank sends to r, cut or filled up
// with zeros to the expected rows; recv gives zeros.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "moetron/comm/communicator.h"

namespace moetron {

struct CommRecord {
  std::string group;
  std::vector<int> members;  // world ranks of the group
  std::string operation;     // "all_reduce", ..., "send", "recv", "barrier"
  int64_t bytes;             // the larger of what goes in and what comes out on this rank
  int rank;                  // world rank of the recording rank
  int peer;                  // world rank: root of a broadcast, other end of a message; else -1
  int tag;                   // of a message
  std::string phase;
  int64_t bytes_sent = 0;  // to other ranks, each byte moved once (Operation::bytes_sent)
  int batch = -1;          // operations between group_begin() and group_end() share a number >= 0
  // How many operations this rank had issued when it first waited for a message; -1: it never did.
  int64_t awaited_at = -1;
};

using CommLog = std::vector<CommRecord>;  // in issue order over all groups of one rank

// The world of `size` ranks as rank `rank` sees it. Subgroups record to the same log.
std::unique_ptr<Communicator> make_fake_world(int rank, int size, std::shared_ptr<CommLog> log);

}  // namespace moetron
