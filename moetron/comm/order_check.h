// Proof that the ranks of a world, given what each would issue (the fake backend's logs), cannot
// wait for each other for ever; and the bytes that they send.
//
// The proof holds for a backend that runs the collectives of a rank one after the other, over all
// its groups, in the order of issue: what NCCL may do when the GPU has room for one of them only.
// Messages run beside what other groups do; within a group everything runs in the order of issue.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moetron/comm/fake_communicator.h"

namespace moetron {

struct OrderFault {
  enum class Kind {
    kSequence,  // members of one group issue different operations on it
    kMessage,   // a send without its recv, or a recv without its send, or of other bytes
    kCycle,     // operations that wait for each other in a circle
  };
  Kind kind;
  std::string message;  // one sentence: ranks, group, operation number (from 0) and what differs
};

// `logs[r]` is the log of world rank r. A group is known by its name and members. Empty when
// - the members of each group issue the same collectives on it: operation, bytes and root agree, of
//   all_to_all_v the operation alone, since its bytes depend on the rank;
// - sends and recvs of each sender, receiver, tag and group agree in number and bytes, in order;
// - no operations wait in a circle. An operation waits for the collectives that a member issued
//   before it, for what that member issued before it in the same group, and for the messages that
//   it had waited for by then.
//   Operations of one batch (group_begin() to group_end()) start together and do not wait for each
//   other; two ranks that send to each other outside of a batch, each before it receives, do.
// Throws InternalError for a record that is not of its log's rank, or of a group without that rank.
std::optional<OrderFault> check_order(const std::vector<CommLog>& logs);

// What one rank sends to others in all operations of one kind on one group; two groups of one name
// are one here.
struct CommVolume {
  std::string group;
  std::string operation;
  int64_t num_operations = 0;
  int64_t bytes_sent = 0;
};

// By group and operation, in the order in which they first occur.
std::vector<CommVolume> sum_volumes(const CommLog& log);

// Bytes sent to others; an empty name stands for all groups, or all operations.
int64_t sum_bytes_sent(const CommLog& log, const std::string& group,
                       const std::string& operation = "");

}  // namespace moetron
