#include "moetron/base/error.h"
#include "moetron/run/explain.h"

namespace moetron {

std::string obstacles(const Explanation& explanation) {
  std::string parts;
  size_t sum = 0;
  const auto count = [&](size_t number, const char* one, const char* several) {
    sum += number;
    if (number > 0)
      parts += concat(parts.empty() ? "" : ", ", number, " ", number == 1 ? one : several);
  };
  count(explanation.missing.size(), "option is missing", "options are missing");
  count(explanation.unknown.size(), "option is unknown", "options are unknown");
  count(explanation.contradictions.size(), "contradiction", "contradictions");
  count(explanation.open.size(), "value is open", "values are open");
  if (sum == 0) return "";
  return concat(sum, sum == 1 ? " thing stands" : " things stand",
                " between this command line and a run here: ", parts);
}

}  // namespace moetron
