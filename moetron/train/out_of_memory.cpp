#include "moetron/train/out_of_memory.h"

#include <algorithm>
#include <fstream>
#include <new>
#include <string_view>
#include <unistd.h>

#include <c10/util/Exception.h>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"

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

double host_memory_bytes() {
  const double all =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  std::ifstream file("/sys/fs/cgroup/memory.max");  // a number, or "max"
  double limit = 0;
  return file >> limit && limit > 0 ? std::min(all, limit) : all;
}

void check_host_memory(const RunSpec& spec, double bytes) {
  const double value = spec.dtype == Dtype::kBf16 ? 2 : 4;
  const double least =
      2 * spec.tokens_per_rank() * static_cast<double>(spec.model.hidden_size) * value;
  MT_CHECK_CONFIG(
      least <= bytes, "seq-length (", spec.batch.seq_length, ") times micro-batch-size (",
      spec.batch.micro_batch_size, ") is too long: one layer's hidden states and normed ones take ",
      formatted("%.3g GB on a rank, and this machine has %.3g GB", least / 1e9, bytes / 1e9));
}

}  // namespace moetron
