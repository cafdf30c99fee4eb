// Whether two runs made the same bits, by the receipts in their metrics.jsonl.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "moetron/base/json.h"

namespace moetron {

struct BitDifference {
  int64_t step = 0;
  std::string what;  // as first_difference() of two receipts says it
};

struct ReceiptComparison {
  bool first_has_any = false;
  bool second_has_any = false;
  int64_t num_steps = 0;                    // with a receipt in both, up to the first difference
  std::optional<int64_t> last_same_step;    // of those
  std::optional<BitDifference> difference;  // the first
};

// Runs as read_run() takes them; what is no metrics.jsonl has no receipts. Of a step that comes
// twice the later record counts. Throws InputError naming file and line.
ReceiptComparison compare_receipts(const std::filesystem::path& first,
                                   const std::filesystem::path& second);

// For people, a line; empty where neither run has a receipt. And for machines; null there.
std::string describe(const ReceiptComparison& comparison, const std::string& first_run,
                     const std::string& second_run);
Json to_json(const ReceiptComparison& comparison);

}  // namespace moetron
