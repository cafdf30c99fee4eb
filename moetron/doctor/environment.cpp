#include "moetron/doctor/environment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string_view>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/parse_number.h"

extern char** environ;

namespace moetron {
namespace {

// Of these, whatever follows changes how libraries work; none of them holds a secret.
constexpr std::array<std::string_view, 9> kPrefixes = {
    "NCCL_", "TORCH_", "PYTORCH_", "CUDA_", "GLOO_", "OMP_", "GOMP_", "KMP_", "MKL_"};
constexpr std::array<std::string_view, 3> kNames = {"ATEN_CPU_CAPABILITY", "LD_PRELOAD",
                                                    "LD_LIBRARY_PATH"};

// What a variable does to a run where it has the value; an empty value: where it has any.
struct Known {
  const char* name;
  const char* value;
  const char* effect;
};
constexpr Known kKnown[] = {
    {"CUDA_LAUNCH_BLOCKING", "1", "every kernel waits for the one before"},
    {"CUDA_VISIBLE_DEVICES", "-1", "hides every GPU"},
    {"PYTORCH_NO_CUDA_MEMORY_CACHING", "1", "takes memory anew for every tensor"},
    {"NCCL_P2P_DISABLE", "1", "GPUs of a machine do not use NVLink"},
    {"NCCL_SHM_DISABLE", "1", "ranks of a machine talk over the network"},
    {"NCCL_IB_DISABLE", "1", "machines do not use InfiniBand"},
    {"NCCL_DEBUG", "TRACE", "writes a line for every call"},
    {"ATEN_CPU_CAPABILITY", "default", "CPUs compute without vector instructions"},
    {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "", "Moetron sets it itself"},
    {"TORCH_NCCL_RETHROW_CUDA_ERRORS", "", "Moetron sets it itself"},
    {"TORCH_NCCL_BLOCKING_WAIT", "1", "a collective holds up the host"},
};

bool changes_runs(std::string_view name) {
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end() ||
         std::any_of(kPrefixes.begin(), kPrefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

std::string shortened(const std::string& value) {
  constexpr size_t kMost = 60;
  return value.size() <= kMost ? value : value.substr(0, kMost) + "...";
}

std::optional<double> number_of(const Variables& variables, const std::string& name) {
  const auto found = variables.find(name);
  if (found == variables.end()) return std::nullopt;
  const auto value = parse_number<double>(found->second);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

}  // namespace

Variables read_variables() {
  Variables variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos)
      variables[std::string(text.substr(0, equals))] = text.substr(equals + 1);
  }
  return variables;
}

Check check_variables(const Variables& variables) {
  std::string found, effects, culprits;
  const auto add = [](std::string& list, const std::string& text) {
    list += (list.empty() ? "" : ", ") + text;
  };
  for (const auto& [name, value] : variables) {
    if (!changes_runs(name)) continue;
    add(found, concat(name, "=", shortened(value)));
    for (const Known& known : kKnown) {
      if (known.name != name || (*known.value != '\0' && known.value != value)) continue;
      add(effects, concat(name, ": ", known.effect));
      add(culprits, name);
    }
  }
  if (found.empty()) return ok("variables", "none that changes runs");
  if (effects.empty()) return ok("variables", found);
  return warn("variables", concat(found, " (", effects, ")"), "unset " + culprits);
}

Check check_time_outs(const Variables& variables, double comm_timeout) {
  // A packet that is lost is sent again so often, each time after 4.096 us x 2^timeout.
  const double exponent = number_of(variables, "NCCL_IB_TIMEOUT").value_or(20);
  const double retries = number_of(variables, "NCCL_IB_RETRY_CNT").value_or(7);
  const double network =
      4.096e-6 * std::exp2(std::clamp(exponent, 0.0, 31.0)) * std::clamp(retries, 0.0, 7.0);
  const std::string found = formatted("ranks wait %.4g s for each other", comm_timeout);
  if (comm_timeout < network)
    return warn("time-outs",
                found + formatted(", and InfiniBand tries for %.3g s to send a packet", network),
                formatted("--comm-timeout %.0f", std::ceil(2 * network)));
  return ok("time-outs", found);
}

}  // namespace moetron
