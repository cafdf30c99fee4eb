#include "moetron/checkpoint/collective.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <filesystem>
#include <span>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/comm/communicator.h"

namespace moetron {
namespace {

[[noreturn]] void throw_error(int exit_code, const std::string& message) {
  if (exit_code == kExitInternal) throw InternalError(message);
  if (exit_code == kExitConfig) throw ConfigError(message);
  if (exit_code == kExitCorruptInput) throw InputError(message);
  throw Error(exit_code, message);
}

// How a rank's work ended. Only the first three travel to every rank.
struct Outcome {
  int64_t exit_code = kExitDone;
  int64_t result = 0;
  int64_t message_bytes = 0;
  std::string message;
  std::exception_ptr failure;
};
constexpr int64_t kNumTravelling = 3;

Outcome outcome_of(const std::function<int64_t()>& work) {
  Outcome outcome;
  try {
    outcome.result = work();
  } catch (const std::filesystem::filesystem_error& error) {
    outcome.failure = std::current_exception();
    outcome.message = describe(error);
    outcome.exit_code = kExitCorruptInput;
    outcome.message_bytes = static_cast<int64_t>(outcome.message.size());
  } catch (const std::exception& error) {
    const auto* known = dynamic_cast<const Error*>(&error);
    outcome.failure = std::current_exception();
    outcome.message = error.what();
    outcome.exit_code = known != nullptr ? known->exit_code() : kExitInternal;
    outcome.message_bytes = static_cast<int64_t>(outcome.message.size());
  }
  return outcome;
}

// Rank `failed` tells all ranks its message, and all throw.
[[noreturn]] void throw_together(Communicator& world, int failed, int64_t exit_code,
                                 int64_t message_bytes, const Outcome& mine) {
  std::string message(static_cast<size_t>(message_bytes), '\0');
  if (world.rank() == failed) message = mine.message;
  if (message_bytes > 0) {
    const at::Tensor text = at::from_blob(message.data(), {message_bytes}, at::kByte);
    world.broadcast(text, failed).wait();
  }
  if (world.rank() == failed) std::rethrow_exception(mine.failure);
  throw_error(static_cast<int>(exit_code), message);
}

}  // namespace

int64_t on_rank_zero(Communicator* world, const std::function<int64_t()>& work) {
  if (world == nullptr || world->size() == 1) return work();
  Outcome outcome;
  if (world->rank() == 0) outcome = outcome_of(work);
  const at::Tensor verdict =
      at::tensor({outcome.exit_code, outcome.result, outcome.message_bytes}, at::kLong);
  world->broadcast(verdict, 0).wait();
  const int64_t* values = verdict.const_data_ptr<int64_t>();
  if (values[0] != kExitDone) throw_together(*world, 0, values[0], values[2], outcome);
  return values[1];
}

std::vector<int64_t> on_all_ranks(Communicator* world, const std::function<int64_t()>& work) {
  if (world == nullptr || world->size() == 1) return {work()};
  const Outcome outcome = outcome_of(work);
  const at::Tensor mine =
      at::tensor({outcome.exit_code, outcome.result, outcome.message_bytes}, at::kLong);
  const at::Tensor all = at::empty({world->size() * kNumTravelling}, at::kLong);
  world->all_gather(all, mine).wait();
  const int64_t* values = all.const_data_ptr<int64_t>();
  std::vector<int64_t> results;
  for (int rank = 0; rank < world->size(); ++rank, values += kNumTravelling) {
    if (values[0] != kExitDone) throw_together(*world, rank, values[0], values[2], outcome);
    results.push_back(values[1]);
  }
  return results;
}

}  // namespace moetron
