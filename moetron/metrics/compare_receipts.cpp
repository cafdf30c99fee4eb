#include "moetron/metrics/compare_receipts.h"

#include <map>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/metrics/loss_history.h"
#include "moetron/metrics/metrics_file.h"

namespace moetron {
namespace {

// The receipts of a run, read one by one: together they may be larger than memory.
class Receipts {
 public:
  explicit Receipts(const std::filesystem::path& run) {
    const auto path = metrics_file_of(run);
    if (!path) return;
    file_.emplace(*path);
    for_each_record(file_->text(), *path, [&](const StepRecord& record, const RecordLine& line) {
      if (record.receipt) {
        lines_[record.step] = line;
      } else {
        lines_.erase(record.step);
      }
    });
  }

  const std::map<int64_t, RecordLine>& lines() const { return lines_; }
  static BitReceipt read(const RecordLine& line) {
    return *parse_step_record(line.text, line.place).receipt;
  }

 private:
  std::optional<MappedFile> file_;
  std::map<int64_t, RecordLine> lines_;  // by step
};

}  // namespace

ReceiptComparison compare_receipts(const std::filesystem::path& first,
                                   const std::filesystem::path& second) {
  const Receipts a(first), b(second);
  ReceiptComparison result;
  result.first_has_any = !a.lines().empty();
  result.second_has_any = !b.lines().empty();
  for (const auto& [step, line] : a.lines()) {
    const auto other = b.lines().find(step);
    if (other == b.lines().end()) continue;
    ++result.num_steps;
    const std::string what = first_difference(Receipts::read(line), Receipts::read(other->second));
    if (!what.empty()) {
      result.difference = BitDifference{step, what};
      break;
    }
    result.last_same_step = step;
  }
  return result;
}

std::string describe(const ReceiptComparison& comparison, const std::string& first_run,
                     const std::string& second_run) {
  if (!comparison.first_has_any && !comparison.second_has_any) return "";
  if (!comparison.first_has_any || !comparison.second_has_any)
    return concat(
        "bits:                not compared: ", comparison.first_has_any ? first_run : second_run,
        " has hashes, but ", comparison.first_has_any ? second_run : first_run,
        " was written without hash-steps\n");
  if (comparison.num_steps == 0)
    return "bits:                not compared: no step has hashes in both runs\n";
  std::string text = "bits:                ";
  if (comparison.last_same_step)
    text += concat("same bits through step ", *comparison.last_same_step);
  if (!comparison.difference) return concat(text, ", in ", comparison.num_steps, " steps\n");
  return concat(text, comparison.last_same_step ? "; " : "", "first difference at step ",
                comparison.difference->step, ": ", comparison.difference->what, "\n");
}

Json to_json(const ReceiptComparison& comparison) {
  if (!comparison.first_has_any && !comparison.second_has_any) return nullptr;
  Json json = {{"first_has_hashes", comparison.first_has_any},
               {"second_has_hashes", comparison.second_has_any},
               {"steps", comparison.num_steps},
               {"last_same_step", nullptr},
               {"first_difference", nullptr}};
  if (comparison.last_same_step) json["last_same_step"] = *comparison.last_same_step;
  if (comparison.difference)
    json["first_difference"] = {{"step", comparison.difference->step},
                                {"what", comparison.difference->what}};
  return json;
}

}  // namespace moetron
