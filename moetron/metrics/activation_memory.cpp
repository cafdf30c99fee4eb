#include "moetron/metrics/activation_memory.h"

#include <algorithm>
#include <cstdio>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// "1.50 GiB", "12.00 MiB", "3.00 KiB", "17 bytes"
std::string readable_bytes(int64_t bytes) {
  constexpr std::pair<const char*, int> kUnits[] = {{"GiB", 30}, {"MiB", 20}, {"KiB", 10}};
  for (const auto& [unit, bits] : kUnits) {
    if (bytes < int64_t{1} << bits) continue;
    char text[32];
    std::snprintf(text, sizeof(text), "%.2f %s",
                  static_cast<double>(bytes) / static_cast<double>(int64_t{1} << bits), unit);
    return text;
  }
  return concat(bytes, " bytes");
}

}  // namespace

void ActivationMemory::add(const std::string& purpose, int64_t bytes) {
  const auto found = std::find_if(kept.begin(), kept.end(), [&](const ActivationBytes& entry) {
    return entry.purpose == purpose;
  });
  if (found == kept.end()) {
    kept.push_back({purpose, bytes});
  } else {
    found->bytes += bytes;
  }
}

int64_t ActivationMemory::kept_bytes() const {
  int64_t sum = 0;
  for (const ActivationBytes& entry : kept) sum += entry.bytes;
  return sum;
}

std::string describe(const ActivationMemory& memory) {
  std::vector<ActivationBytes> sorted = memory.kept;
  std::stable_sort(
      sorted.begin(), sorted.end(),
      [](const ActivationBytes& a, const ActivationBytes& b) { return a.bytes > b.bytes; });
  const int64_t kept = memory.kept_bytes();
  std::string purposes;
  for (const ActivationBytes& entry : sorted) {
    if (entry.bytes < kept / 1000) continue;  // the record of the step has it
    purposes +=
        concat(purposes.empty() ? " (" : ", ", entry.purpose, " ", readable_bytes(entry.bytes));
  }
  if (!purposes.empty()) purposes += ")";
  return concat("activations of a micro-batch: ", readable_bytes(kept), " kept", purposes, ", ",
                readable_bytes(memory.peak_bytes), " at most");
}

}  // namespace moetron
