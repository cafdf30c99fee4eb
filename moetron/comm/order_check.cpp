#include "moetron/comm/order_check.h"

#include <algorithm>
#include <deque>
#include <map>
#include <tuple>

namespace moetron {
namespace {

struct Group {
  std::string name;
  std::vector<int> members;
  auto operator<=>(const Group&) const = default;
};

// The messages of one sender, receiver and tag, in order.
struct Channel {
  Group group;
  int sender;
  int receiver;
  int tag;
  auto operator<=>(const Channel&) const = default;
};

bool is_message(const CommRecord& record) {
  return record.operation == "send" || record.operation == "recv";
}

Group group_of(const CommRecord& record) {
  return {record.group, record.members};
}

Channel channel_of(const CommRecord& record) {
  const bool sends = record.operation == "send";
  return {group_of(record), sends ? record.rank : record.peer, sends ? record.peer : record.rank,
          record.tag};
}

std::string describe(const Group& group) {
  std::string members;
  for (int rank : group.members) members += concat(members.empty() ? "" : ", ", rank);
  return concat("group \"", group.name, "\" (ranks ", members, ")");
}

std::string describe(const Channel& channel, size_t number) {
  return concat("message ", number, " from rank ", channel.sender, " to rank ", channel.receiver,
                " with tag ", channel.tag, " of ", describe(channel.group));
}

std::string describe(const CommRecord& record) {
  std::string text = record.operation;
  if (record.operation == "barrier" || record.operation == "all_to_all_v") return text;
  text += concat(" of ", record.bytes, " bytes");
  if (record.operation == "broadcast") text += concat(" from rank ", record.peer);
  return text;
}

bool agree(const CommRecord& a, const CommRecord& b) {
  if (a.operation != b.operation) return false;
  return a.operation == "all_to_all_v" || (a.bytes == b.bytes && a.peer == b.peer);
}

using Records = std::vector<const CommRecord*>;

std::optional<OrderFault> check_sequences(const std::vector<CommLog>& logs) {
  std::map<Group, std::map<int, Records>> sequences;
  for (const CommLog& log : logs) {
    for (const CommRecord& record : log) {
      if (!is_message(record)) sequences[group_of(record)][record.rank].push_back(&record);
    }
  }
  for (auto& [group, by_rank] : sequences) {
    const int first_rank = group.members[0];
    const Records& first = by_rank[first_rank];
    for (int rank : group.members) {
      const Records& other = by_rank[rank];
      for (size_t k = 0; k < std::max(first.size(), other.size()); ++k) {
        if (k < first.size() && k < other.size() && agree(*first[k], *other[k])) continue;
        const auto say = [k](const Records& records) {
          return k < records.size() ? describe(*records[k]) : std::string("nothing");
        };
        return OrderFault{OrderFault::Kind::kSequence,
                          concat("operation ", k, " of ", describe(group), " is ", say(first),
                                 " on rank ", first_rank, ", but ", say(other), " on rank ", rank)};
      }
    }
  }
  return std::nullopt;
}

std::optional<OrderFault> check_messages(const std::vector<CommLog>& logs) {
  std::map<Channel, std::pair<Records, Records>> channels;  // sends, recvs
  for (const CommLog& log : logs) {
    for (const CommRecord& record : log) {
      if (!is_message(record)) continue;
      auto& [sends, recvs] = channels[channel_of(record)];
      (record.operation == "send" ? sends : recvs).push_back(&record);
    }
  }
  for (const auto& [channel, both] : channels) {
    const auto& [sends, recvs] = both;
    for (size_t k = 0; k < std::max(sends.size(), recvs.size()); ++k) {
      std::string what;
      if (k >= recvs.size()) {
        what = concat("is sent, but rank ", channel.receiver, " does not receive it");
      } else if (k >= sends.size()) {
        what = concat("is awaited, but rank ", channel.sender, " does not send it");
      } else if (sends[k]->bytes != recvs[k]->bytes) {
        what =
            concat("is sent with ", sends[k]->bytes, " bytes and awaited with ", recvs[k]->bytes);
      } else {
        continue;
      }
      return OrderFault{OrderFault::Kind::kMessage, concat(describe(channel, k), " ", what)};
    }
  }
  return std::nullopt;
}

// Operations of one rank that run one after the other; those of one batch together.
class Lane {
 public:
  // What `record` begins after.
  const std::vector<int>& before(const CommRecord& record) {
    if (!latest_.empty() && (record.batch < 0 || record.batch != batch_)) {
      before_ = std::exchange(latest_, {});
    }
    return before_;
  }
  void add(const CommRecord& record, int node) {
    latest_.push_back(node);
    batch_ = record.batch;
  }

 private:
  std::vector<int> before_, latest_;  // nodes
  int batch_ = -1;
};

// The operations of the whole world, each once however many ranks take part in it, and who issues
// which after which.
class WaitGraph {
 public:
  explicit WaitGraph(const std::vector<CommLog>& logs) {
    for (const CommLog& log : logs) add_rank(log);
  }

  std::optional<OrderFault> find_cycle() const {
    for (int start : remove_free_nodes()) {
      const std::vector<const Edge*> cycle = shortest_cycle(start);
      if (!cycle.empty()) return OrderFault{OrderFault::Kind::kCycle, describe_cycle(cycle)};
    }
    return std::nullopt;
  }

 private:
  struct Edge {
    int from;
    int to;
    int rank;  // issues `from` before `to`
  };

  void add_rank(const CommLog& log) {
    std::map<Group, int> num_collectives;
    std::map<Channel, int> num_messages;
    Lane collectives;
    std::map<Group, Lane> groups;
    std::vector<std::pair<int64_t, int>> awaited;  // when, and which message
    for (size_t i = 0; i < log.size(); ++i) {
      const CommRecord& record = log[i];
      const int node = is_message(record)
                           ? find_message(record, num_messages[channel_of(record)]++)
                           : find_collective(record, num_collectives[group_of(record)]++);
      Lane& group = groups[group_of(record)];
      for (int before : collectives.before(record)) add_edge(before, node, record.rank);
      for (int before : group.before(record)) add_edge(before, node, record.rank);
      for (const auto& [when, message] : awaited) {
        if (when <= static_cast<int64_t>(i)) add_edge(message, node, record.rank);
      }
      group.add(record, node);
      if (!is_message(record)) collectives.add(record, node);
      if (is_message(record) && record.awaited_at >= 0)
        awaited.emplace_back(record.awaited_at, node);
    }
  }

  void add_edge(int from, int to, int rank) { edges_[from].push_back({from, to, rank}); }

  int find_collective(const CommRecord& record, int number) {
    const auto [place, is_new] =
        collectives_.try_emplace({group_of(record), number}, static_cast<int>(names_.size()));
    if (is_new) {
      add_node(concat("operation ", number, " (", record.operation, ") of ",
                      describe(group_of(record))));
    }
    return place->second;
  }

  int find_message(const CommRecord& record, int number) {
    const auto [place, is_new] =
        messages_.try_emplace({channel_of(record), number}, static_cast<int>(names_.size()));
    if (is_new) add_node(describe(channel_of(record), number));
    return place->second;
  }

  void add_node(std::string name) {
    names_.push_back(std::move(name));
    edges_.emplace_back();
  }

  // The nodes that wait for a cycle, or lie on one.
  std::vector<int> remove_free_nodes() const {
    std::vector<int> num_before(names_.size());
    for (const auto& edges : edges_) {
      for (const Edge& edge : edges) ++num_before[edge.to];
    }
    std::deque<int> free;
    for (size_t node = 0; node < names_.size(); ++node) {
      if (num_before[node] == 0) free.push_back(static_cast<int>(node));
    }
    while (!free.empty()) {
      for (const Edge& edge : edges_[free.front()]) {
        if (--num_before[edge.to] == 0) free.push_back(edge.to);
      }
      free.pop_front();
    }
    std::vector<int> rest;
    for (size_t node = 0; node < names_.size(); ++node) {
      if (num_before[node] > 0) rest.push_back(static_cast<int>(node));
    }
    return rest;
  }

  // From `start` back to it; empty when there is no way.
  std::vector<const Edge*> shortest_cycle(int start) const {
    std::vector<const Edge*> reached_by(names_.size());
    std::deque<int> frontier = {start};
    while (!frontier.empty() && !reached_by[start]) {
      for (const Edge& edge : edges_[frontier.front()]) {
        if (reached_by[edge.to]) continue;
        reached_by[edge.to] = &edge;
        frontier.push_back(edge.to);
      }
      frontier.pop_front();
    }
    std::vector<const Edge*> cycle;
    for (const Edge* edge = reached_by[start]; edge; edge = reached_by[edge->from]) {
      cycle.push_back(edge);
      if (edge->from == start) break;
    }
    std::reverse(cycle.begin(), cycle.end());
    return cycle;
  }

  std::string describe_cycle(const std::vector<const Edge*>& cycle) const {
    std::string text = "operations wait for each other in a circle";
    for (const Edge* edge : cycle) {
      text += concat(edge == cycle[0] ? ": " : "; ", "rank ", edge->rank, " issues ",
                     names_[edge->from], " before ", names_[edge->to]);
    }
    return text;
  }

  std::map<std::pair<Group, int>, int> collectives_;  // k-th of a group -> node
  std::map<std::pair<Channel, int>, int> messages_;
  std::vector<std::string> names_;        // by node
  std::vector<std::vector<Edge>> edges_;  // by node they leave
};

}  // namespace

std::optional<OrderFault> check_order(const std::vector<CommLog>& logs) {
  for (size_t rank = 0; rank < logs.size(); ++rank) {
    for (const CommRecord& record : logs[rank]) {
      MT_CHECK(record.rank == static_cast<int>(rank), "log ", rank, " holds a record of rank ",
               record.rank);
      for (int member : record.members) {
        MT_CHECK(member >= 0 && member < static_cast<int>(logs.size()), "group \"", record.group,
                 "\" has rank ", member, ", but there are ", logs.size(), " logs");
      }
      MT_CHECK(std::count(record.members.begin(), record.members.end(), record.rank) == 1, "rank ",
               rank, " issues ", record.operation, " on group \"", record.group,
               "\", of which it is no member");
    }
  }
  if (auto fault = check_sequences(logs)) return fault;
  if (auto fault = check_messages(logs)) return fault;
  return WaitGraph(logs).find_cycle();
}

std::vector<CommVolume> sum_volumes(const CommLog& log) {
  std::vector<CommVolume> volumes;
  for (const CommRecord& record : log) {
    auto place = std::find_if(volumes.begin(), volumes.end(), [&](const CommVolume& volume) {
      return volume.group == record.group && volume.operation == record.operation;
    });
    if (place == volumes.end()) {
      place = volumes.insert(place, {record.group, record.operation});
    }
    ++place->num_operations;
    place->bytes_sent += record.bytes_sent;
  }
  return volumes;
}

int64_t sum_bytes_sent(const CommLog& log, const std::string& group, const std::string& operation) {
  int64_t sum = 0;
  for (const CommRecord& record : log) {
    if (!group.empty() && record.group != group) continue;
    if (!operation.empty() && record.operation != operation) continue;
    sum += record.bytes_sent;
  }
  return sum;
}

}  // namespace moetron
