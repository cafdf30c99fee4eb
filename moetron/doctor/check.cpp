#include "moetron/doctor/check.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"

namespace moetron {
namespace {

const char* name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarn:
      return "warn";
    case Verdict::kFail:
      return "fail";
  }
  throw InternalError("a check without a verdict");
}

int64_t count(const std::vector<Check>& checks, Verdict verdict) {
  return std::count_if(checks.begin(), checks.end(),
                       [&](const Check& check) { return check.verdict == verdict; });
}

}  // namespace

Check ok(const std::string& name, const std::string& finding) {
  return {name, Verdict::kOk, finding};
}

Check warn(const std::string& name, const std::string& finding, const std::string& cure) {
  return {name, Verdict::kWarn, finding, cure};
}

Check fail(const std::string& name, const std::string& finding, const std::string& cure) {
  return {name, Verdict::kFail, finding, cure};
}

std::string describe(const Check& check) {
  std::string verdict = name_of(check.verdict);
  verdict.resize(6, ' ');
  std::string line = verdict + check.name + ": " + check.finding;
  if (!check.cure.empty()) line += ". Cure: " + check.cure;
  for (char& c : line) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return line;
}

std::string summary(const std::vector<Check>& checks) {
  const int64_t num_failed = count(checks, Verdict::kFail);
  std::string text = concat(count(checks, Verdict::kOk), " ok, ", count(checks, Verdict::kWarn),
                            " warn, ", num_failed, " fail");
  if (num_failed > 0) {
    const auto first = std::find_if(checks.begin(), checks.end(), [](const Check& check) {
      return check.verdict == Verdict::kFail;
    });
    text += concat("; first: ", first->name);
  }
  return text;
}

std::string to_json_text(const std::vector<Check>& checks) {
  Json list = Json::array();
  for (const Check& check : checks)
    list.push_back({{"name", check.name},
                    {"verdict", name_of(check.verdict)},
                    {"finding", check.finding},
                    {"cure", check.cure}});
  const Json json = {{"checks", std::move(list)}, {"failed", count(checks, Verdict::kFail)}};
  return json.dump(2, ' ', true, Json::error_handler_t::replace);
}

bool has_failure(const std::vector<Check>& checks) {
  return count(checks, Verdict::kFail) > 0;
}

}  // namespace moetron
