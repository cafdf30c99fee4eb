#include "moetron/metrics/bit_receipt.h"

#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error_test_support.h"

namespace moetron {
namespace {

BitReceipt sample() {
  return {.loss = 1, .gradients = {{"a", 2}, {"b", 3}}, .parameters = {{"a", 4}, {"c", ~0ULL}}};
}

TEST(ElementHash, DependsOnPlaceAndBits) {
  std::set<uint64_t> seen;
  for (uint64_t index = 0; index < 100; ++index)
    for (const uint64_t bits : {0U, 1U, 2U, 0x80000000U, 0x3f800000U})
      seen.insert(element_hash(index, bits));
  EXPECT_EQ(seen.size(), 500U);
  EXPECT_NE(element_hash(0, 1) + element_hash(1, 2), element_hash(0, 2) + element_hash(1, 1));
  EXPECT_NE(element_hash(0, 0), 0U);
}

TEST(BitReceipt, ComesBackFromItsJson) {
  const Json json = to_json(sample());
  EXPECT_EQ(json.at("loss"), "0000000000000001");
  EXPECT_EQ(json.at("parameters")[1][1], "ffffffffffffffff");
  EXPECT_EQ(parse_bit_receipt(json, "place"), sample());
}

TEST(BitReceipt, TotalKnowsWhichHashIsWhere) {
  BitReceipt swapped = sample();
  std::swap(swapped.gradients[0].hash, swapped.gradients[1].hash);
  EXPECT_NE(total_hash(swapped), total_hash(sample()));
}

TEST(BitReceipt, NamesTheFirstDifference) {
  EXPECT_EQ(first_difference(sample(), sample()), "");
  BitReceipt other = sample();
  other.parameters[1].hash = 5;
  EXPECT_EQ(first_difference(sample(), other), "parameter c");
  other.gradients[1].hash = 5;
  EXPECT_EQ(first_difference(sample(), other), "gradient of b");
  other.loss = 5;
  EXPECT_EQ(first_difference(sample(), other), "loss");
  BitReceipt shorter = sample();
  shorter.parameters.pop_back();
  EXPECT_EQ(first_difference(sample(), shorter), "parameter c");
  EXPECT_EQ(first_difference(shorter, sample()), "parameter c");
}

TEST(BitReceipt, RefusesWhatIsNone) {
  const auto refusal = [](const char* key, const Json& value) {
    Json json = to_json(sample());
    json[key] = value;
    return error_of<InputError>([&] { parse_bit_receipt(json, "file:3"); });
  };
  EXPECT_EQ(refusal("loss", 1), "file:3: a hash of the receipt is no text");
  EXPECT_EQ(refusal("loss", "+00000000000000f"),
            "file:3: \"+00000000000000f\" of the receipt is no hash of 16 hexadecimal digits");
  EXPECT_NE(refusal("loss", "00f"), "");
  EXPECT_NE(refusal("loss", "00000000000000000"), "");
  EXPECT_NE(refusal("gradients", "a"), "");
  EXPECT_NE(refusal("gradients", Json::array({"a"})), "");
  EXPECT_NE(refusal("parameters", Json::array({Json::array({1, "0000000000000001"})})), "");
  EXPECT_NE(refusal("parameters", Json::array()).find("total"), std::string::npos);
  EXPECT_EQ(error_of<InputError>([] { parse_bit_receipt(Json::array(), "file:3"); }),
            "file:3: receipt is not an object");
  EXPECT_EQ(error_of<InputError>([] { parse_bit_receipt(Json::object(), "file:3"); }),
            "file:3: the receipt has no loss");
}

}  // namespace
}  // namespace moetron
