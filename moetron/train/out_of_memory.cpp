#include "moetron/train/out_of_memory.h"

#include "moetron/base/error.h"

namespace moetron {

// libtorch goes on to tell of its allocator's settings, by names of Python's.
std::string describe_out_of_memory(const c10::OutOfMemoryError& error) {
  constexpr std::string_view kLastWords = " is free.";
  std::string cause = first_line(error);
  const size_t end = cause.find(kLastWords);
  if (end != std::string::npos) cause.resize(end + kLastWords.size());
  return cause +
         " Less is needed with a smaller micro-batch-size or seq-length, with mlp-recompute or "
         "recompute-granularity full, with optimizer hybridadam (Adam's states in host memory), "
         "and on more ranks.";
}

}  // namespace moetron
