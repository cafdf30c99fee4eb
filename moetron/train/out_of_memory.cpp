#include "moetron/train/out_of_memory.h"

#include <new>
#include <string_view>

#include <c10/util/Exception.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// libtorch goes on to tell of its allocator's settings, by names of Python's.
std::string describe_gpu(const c10::OutOfMemoryError& error) {
  constexpr std::string_view kLastWords = " is free.";
  std::string cause = first_line(error);
  const size_t end = cause.find(kLastWords);
  if (end != std::string::npos) cause.resize(end + kLastWords.size());
  return cause +
         " Less is needed with a smaller micro-batch-size or seq-length, with mlp-recompute or "
         "recompute-granularity full, with optimizer hybridadam (Adam's states in host memory), "
         "and on more ranks.";
}

// libtorch has no type of its own for this one: "[enforce fail at ...] . DefaultCPUAllocator: can't
// allocate memory: you tried to allocate 274877906944 bytes. Error code 12 (...)".
std::optional<std::string> refused_by_host(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return "";
  constexpr std::string_view kSign = "can't allocate memory: you tried to allocate ";
  const std::string cause = first_line(error);
  const size_t begin = cause.find(kSign);
  if (begin == std::string::npos) return std::nullopt;
  const size_t number = begin + kSign.size();
  return concat(": it has no more ", cause.substr(number, cause.find('.', number) - number));
}

}  // namespace

std::optional<std::string> describe_out_of_memory(const std::exception& error) {
  if (const auto* gpu = dynamic_cast<const c10::OutOfMemoryError*>(&error)) {
    return describe_gpu(*gpu);
  }
  const auto refused = refused_by_host(error);
  if (!refused) return std::nullopt;
  return concat("The host is out of memory", *refused,
                ". Less is needed by a smaller model, with a smaller micro-batch-size or "
                "seq-length, with recompute-granularity full, and on more hosts.");
}

}  // namespace moetron
