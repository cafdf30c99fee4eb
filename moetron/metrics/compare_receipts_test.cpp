#include "moetron/metrics/compare_receipts.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error_test_support.h"
#include "moetron/metrics/metrics_file.h"
#include "moetron/metrics/metrics_test_data.h"

namespace moetron {
namespace {

constexpr uint64_t kNone = 0;

class CompareReceipts : public MetricsFolderTest {
 protected:
  // A record of each of the steps 1, 2, ...; its receipt has the given hash of the tensor "w", or
  // there is none.
  std::filesystem::path run(const std::string& name, const std::vector<uint64_t>& hashes,
                            int64_t first_step = 1) const {
    std::ofstream out(folder_ / name, std::ios::app);
    for (const uint64_t hash : hashes) {
      StepRecord record = sample_record(first_step++);
      if (hash != kNone)
        record.receipt =
            BitReceipt{.loss = 1, .gradients = {{"w", 9}}, .parameters = {{"w", hash}}};
      out << to_json_line(record) << '\n';
    }
    return folder_ / name;
  }
};

TEST_F(CompareReceipts, FindsTheFirstStepAndTensor) {
  const auto a = run("a", {1, 2, kNone, 4, 5, 6}), b = run("b", {1, 2, 3, 4, 7, 8});
  const ReceiptComparison result = compare_receipts(a, b);
  EXPECT_EQ(describe(result, "a", "b"),
            "bits:                same bits through step 4; first difference at step 5: parameter "
            "w\n");
  EXPECT_EQ(to_json(result).dump(),
            R"({"first_has_hashes":true,"second_has_hashes":true,"steps":4,"last_same_step":4,)"
            R"("first_difference":{"step":5,"what":"parameter w"}})");
  EXPECT_EQ(describe(compare_receipts(a, run("c", {9})), "a", "c"),
            "bits:                first difference at step 1: parameter w\n");
}

TEST_F(CompareReceipts, SaysThatAllAreTheSame) {
  const auto a = run("a", {1, 2, 3}), b = run("b", {1, 2});
  EXPECT_EQ(describe(compare_receipts(a, b), "a", "b"),
            "bits:                same bits through step 2, in 2 steps\n");
}

TEST_F(CompareReceipts, SaysWhereThereIsNothingToCompare) {
  const auto with = run("with", {1, 2}), without = run("without", {kNone, kNone});
  EXPECT_EQ(describe(compare_receipts(with, without), "with", "without"),
            "bits:                not compared: with has hashes, but without was written without "
            "hash-steps\n");
  EXPECT_EQ(describe(compare_receipts(without, with), "without", "with"),
            "bits:                not compared: with has hashes, but without was written without "
            "hash-steps\n");
  EXPECT_EQ(describe(compare_receipts(without, without), "x", "y"), "");
  EXPECT_TRUE(to_json(compare_receipts(without, without)).is_null());
  const auto late = run("late", {kNone, kNone, 3});
  EXPECT_EQ(describe(compare_receipts(with, late), "with", "late"),
            "bits:                not compared: no step has hashes in both runs\n");
  std::ofstream(folder_ / "table.csv") << "step,loss\n1,2.0\n";
  EXPECT_FALSE(compare_receipts(with, folder_ / "table.csv").second_has_any);
}

// Of a run that went on from a checkpoint the later record counts, with its receipt or without.
TEST_F(CompareReceipts, TakesTheLaterOfTwoRecords) {
  const auto a = run("a", {1, 2, 3}), b = run("b", {1, 8});
  run("b", {2, 3}, 2);
  EXPECT_FALSE(compare_receipts(a, b).difference);
  run("b", {kNone}, 3);
  EXPECT_EQ(compare_receipts(a, b).last_same_step, 2);
}

TEST_F(CompareReceipts, NamesADamagedLine) {
  const auto a = run("a", {1}), b = run("b", {1});
  std::ofstream(b, std::ios::app) << "{\"step\": 2}\n{\"step\": 3, \"los";
  const std::string refusal = error_of<InputError>([&] { compare_receipts(a, b); });
  EXPECT_NE(refusal.find("b:2: "), std::string::npos) << refusal;
}

// Receipts are read where they are compared, and nowhere else.
TEST_F(CompareReceipts, ACurveIsReadWithoutThem) {
  const auto records = read_metrics(run("a", {1, 2}));
  ASSERT_EQ(records.size(), 2U);
  EXPECT_FALSE(records[0].receipt);
}

}  // namespace
}  // namespace moetron
