#include "moetron/metrics/bit_receipt.h"

#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr size_t kDigits = 16;

std::string hex_of(uint64_t hash) {
  std::string text(kDigits, '0');
  for (size_t i = kDigits; i-- > 0; hash >>= 4) text[i] = "0123456789abcdef"[hash & 15];
  return text;
}

uint64_t parse_hex(const Json& json, const std::string& place) {
  MT_CHECK_INPUT(json.is_string(), place, ": a hash of the receipt is no text");
  const auto& text = json.get_ref<const std::string&>();
  uint64_t hash = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, hash, 16);
  MT_CHECK_INPUT(text.size() == kDigits && parsed.ec == std::errc{} && parsed.ptr == end, place,
                 ": \"", text.substr(0, 2 * kDigits), "\" of the receipt is no hash of ", kDigits,
                 " hexadecimal digits");
  return hash;
}

const Json& member(const Json& json, const char* key, const std::string& place) {
  MT_CHECK_INPUT(json.is_object(), place, ": receipt is not an object");
  const auto found = json.find(key);
  MT_CHECK_INPUT(found != json.end(), place, ": the receipt has no ", key);
  return *found;
}

// Lists of pairs: an object of so many keys is slow to write and to read.
Json to_json(const std::vector<NamedHash>& hashes) {
  Json list = Json::array();
  for (const NamedHash& entry : hashes)
    list.push_back(Json::array({entry.name, hex_of(entry.hash)}));
  return list;
}

std::vector<NamedHash> parse_hashes(const Json& json, const std::string& place) {
  MT_CHECK_INPUT(json.is_array(), place, ": gradients or parameters of the receipt are no list");
  std::vector<NamedHash> hashes;
  for (const Json& entry : json) {
    MT_CHECK_INPUT(entry.is_array() && entry.size() == 2 && entry[0].is_string(), place,
                   ": the receipt holds something that is no pair of name and hash");
    hashes.push_back({entry[0].get<std::string>(), parse_hex(entry[1], place)});
  }
  return hashes;
}

// The name of the first entry that differs; empty: none does.
std::string first_other(const std::vector<NamedHash>& a, const std::vector<NamedHash>& b) {
  const auto [in_a, in_b] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (in_a != a.end()) return in_a->name;
  return in_b != b.end() ? in_b->name : "";
}

}  // namespace

uint64_t total_hash(const BitReceipt& receipt) {
  uint64_t index = 0;
  uint64_t total = element_hash(index, receipt.loss);
  for (const auto* hashes : {&receipt.gradients, &receipt.parameters})
    for (const NamedHash& entry : *hashes) total += element_hash(++index, entry.hash);
  return total;
}

std::string first_difference(const BitReceipt& a, const BitReceipt& b) {
  if (a.loss != b.loss) return "loss";
  const std::string gradient = first_other(a.gradients, b.gradients);
  if (!gradient.empty()) return "gradient of " + gradient;
  const std::string parameter = first_other(a.parameters, b.parameters);
  return parameter.empty() ? "" : "parameter " + parameter;
}

Json to_json(const BitReceipt& receipt) {
  return {{"total", hex_of(total_hash(receipt))},
          {"loss", hex_of(receipt.loss)},
          {"gradients", to_json(receipt.gradients)},
          {"parameters", to_json(receipt.parameters)}};
}

BitReceipt parse_bit_receipt(const Json& json, const std::string& place) {
  BitReceipt receipt;
  receipt.loss = parse_hex(member(json, "loss", place), place);
  receipt.gradients = parse_hashes(member(json, "gradients", place), place);
  receipt.parameters = parse_hashes(member(json, "parameters", place), place);
  const uint64_t total = parse_hex(member(json, "total", place), place);
  MT_CHECK_INPUT(total == total_hash(receipt), place, ": the receipt's total (", hex_of(total),
                 ") is not that of its hashes (", hex_of(total_hash(receipt)), ")");
  return receipt;
}

}  // namespace moetron
