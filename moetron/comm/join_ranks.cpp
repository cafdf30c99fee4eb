#include "moetron/comm/join_ranks.h"

#include <thread>
#include <vector>

#include <torch/csrc/distributed/c10d/Store.hpp>

namespace moetron {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kHearingTime{3000};
constexpr const char* kRefused = "refused";       // exit code, rank and cause, a line each
constexpr const char* kAllJoined = "all_joined";  // for rank 0, which waits for nothing else
constexpr const char* kWelcome = "welcome";       // for the others

// The first refusal is the one that counts; everybody who waits wakes up.
void publish_refusal(c10d::Store& store, int rank, int exit_code, const std::string& cause) {
  store.compareSet(kRefused, "", concat(exit_code, "\n", rank, "\n", cause));
  store.set(kAllJoined, "1");
  store.set(kWelcome, "1");
}

// A server that left at once would take the refusal with it.
void let_others_hear(const WorldOptions& options) {
  c10d::Store& store = *options.store;
  store.add("num_heard", 1);
  if (!options.serves_store) return;
  const auto deadline = steady_clock::now() + kHearingTime;
  while (store.add("num_heard", 0) < options.size && steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(20));
  }
}

std::string difference_to(const WorldOptions& options, int rank) {
  const std::string key = rank_key("greeting", rank);
  if (rank == options.rank || !options.greeting.difference || !options.store->check({key}))
    return "";
  return options.greeting.difference(options.greeting.text, options.store->get_to_str(key), rank);
}

[[noreturn]] void throw_refusal(const WorldOptions& options) {
  const std::string text = options.store->get_to_str(kRefused);
  const size_t code_end = text.find('\n'), rank_end = text.find('\n', code_end + 1);
  const int exit_code = std::stoi(text.substr(0, code_end));
  const int rank = std::stoi(text.substr(code_end + 1, rank_end - code_end - 1));
  std::string message = text.substr(rank_end + 1);
  // What one rank alone has found wrong may be an option that it alone has.
  const std::string difference = options.rank == 0 ? difference_to(options, rank) : "";
  if (!difference.empty() && difference != message) message += "\n" + difference;
  const bool rank_zero_knows = options.store->check({rank_key("greeting", 0)});
  let_others_hear(options);
  throw JoinRefused(exit_code, message, rank_zero_knows);
}

void refuse(const WorldOptions& options, const std::string& cause) {
  publish_refusal(*options.store, options.rank, kExitConfig, cause);
  throw_refusal(options);
}

std::string describe_missing(const WorldOptions& options, std::chrono::duration<double> waited) {
  std::string missing;
  for (int r = 0; r < options.size; ++r) {
    if (options.store->check({rank_key("greeting", r)})) continue;
    missing += concat(missing.empty() ? "" : ", ", r);
  }
  return concat("rank ", options.rank, " waited ", waited.count(), " s for all of ", options.size,
                " ranks to join; rank ", missing.empty() ? "0" : missing,
                missing.empty() ? " does not answer" : " did not come");
}

void wait_for(const WorldOptions& options, const char* key) {
  const auto begin = steady_clock::now();
  try {
    options.store->wait({key}, options.join_timeout);
  } catch (const std::exception&) {
    refuse(options, describe_missing(options, steady_clock::now() - begin));
  }
  if (options.store->check({kRefused})) throw_refusal(options);
}

}  // namespace

std::string rank_key(const char* what, int rank) {
  return concat(what, "/", rank);
}

JoinRefused::JoinRefused(int exit_code, const std::string& message, bool rank_zero_knows)
    : Error(exit_code, message), rank_zero_knows_(rank_zero_knows) {}

namespace {

void meet(const WorldOptions& options) {
  c10d::Store& store = *options.store;
  const int rank = options.rank;
  if (store.add(rank_key("claim", rank), 1) != 1) {
    refuse(options,
           concat("two processes of one run claim to be rank ", rank, " of ", options.size));
  }
  store.set(rank_key("greeting", rank), options.greeting.text);
  const std::string mine = concat(options.size, "\n", rank);
  const std::string first = store.compareSet("size", "", mine);
  const size_t end = first.find('\n');
  if (first.substr(0, end) != std::to_string(options.size)) {
    refuse(options, concat("the world size must be the same on all ranks: rank ",
                           first.substr(end + 1), " counts ", first.substr(0, end), " ranks, rank ",
                           rank, " counts ", options.size));
  }
  if (store.add("num_joined", 1) == options.size) store.set(kAllJoined, "1");
  if (rank != 0) return wait_for(options, kWelcome);
  wait_for(options, kAllJoined);
  for (int other = 1; other < options.size; ++other) {
    const std::string difference = difference_to(options, other);
    if (!difference.empty()) refuse(options, difference);
  }
  store.set(kWelcome, "1");
}

}  // namespace

void join_ranks(const WorldOptions& options) {
  try {
    meet(options);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(kExitInternal, concat("rank ", options.rank, " was meeting the others when ",
                                      options.agent_serves_store ? "the launcher" : "rank 0",
                                      ", which serves the store, ended (", first_line(error), ")"));
  }
}

void refuse_to_join(const WorldOptions& options, const Error& cause) {
  try {
    options.store->set(rank_key("greeting", options.rank), options.greeting.text);
    publish_refusal(*options.store, options.rank, cause.exit_code(),
                    concat("rank ", options.rank, " cannot start: ", cause.what()));
    let_others_hear(options);
  } catch (const std::exception&) {
    return;
  }
}

}  // namespace moetron
