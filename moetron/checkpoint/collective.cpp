#include "moetron/checkpoint/collective.h"

#include <cstring>
#include <exception>
#include <string>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/comm/communicator.h"

namespace moetron {
namespace {

[[noreturn]] void throw_error(int exit_code, const std::string& message) {
  if (exit_code == kExitConfig) throw ConfigError(message);
  if (exit_code == kExitCorruptInput) throw InputError(message);
  throw Error(exit_code, message);
}

}  // namespace

int64_t on_rank_zero(Communicator* world, const std::function<int64_t()>& work) {
  if (world == nullptr || world->size() == 1) return work();
  // {exit code, result, length of the message}, then the message if there is one.
  const at::Tensor verdict = at::zeros(3, at::kLong);
  int64_t* values = verdict.mutable_data_ptr<int64_t>();
  std::string message;
  std::exception_ptr failure;
  if (world->rank() == 0) {
    try {
      values[1] = work();
    } catch (const std::exception& error) {
      const auto* known = dynamic_cast<const Error*>(&error);
      failure = std::current_exception();
      message = error.what();
      values[0] = known != nullptr ? known->exit_code() : kExitInternal;
      values[2] = static_cast<int64_t>(message.size());
    }
  }
  world->broadcast(verdict, 0).wait();
  if (values[0] == kExitDone) return values[1];
  const at::Tensor text = at::empty(values[2], at::kByte);
  if (!message.empty()) std::memcpy(text.mutable_data_ptr(), message.data(), message.size());
  if (values[2] > 0) world->broadcast(text, 0).wait();
  if (failure) std::rethrow_exception(failure);
  throw_error(
      static_cast<int>(values[0]),
      std::string(static_cast<const char*>(text.const_data_ptr()), static_cast<size_t>(values[2])));
}

}  // namespace moetron
