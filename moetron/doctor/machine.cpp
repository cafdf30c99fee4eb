#include "moetron/doctor/machine.h"

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>
#include <string>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/parse_number.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/base/units.h"
#include "moetron/metrics/gnuplot.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

std::string gib(double bytes) {
  return formatted("%.3g GiB", bytes / kGibi);
}

// What follows "NAME :" or "NAME:" in the first line that begins so.
std::optional<std::string> field(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t end = line.find_last_not_of(" \t", colon == 0 ? 0 : colon - 1);
    if (line.substr(0, end + 1) == name) return line.substr(colon + 1);
  }
  return std::nullopt;
}

// Of a line of /proc/meminfo, in bytes.
std::optional<double> memory_field(const std::string& text, const std::string& name) {
  const auto value = field(text, name);
  if (!value) return std::nullopt;
  std::istringstream words(*value);
  std::string number;
  words >> number;
  const auto kilobytes = parse_number<int64_t>(number);
  if (!kilobytes || *kilobytes < 0) return std::nullopt;
  return static_cast<double>(*kilobytes) * 1024;
}

bool has_word(const std::string& text, const std::string& wanted) {
  std::istringstream words(text);
  for (std::string word; words >> word;)
    if (word == wanted) return true;
  return false;
}

// Empty where the processor is none of Intel's kind, or says nothing.
std::string vector_instructions(const std::string& flags) {
  for (const auto& [flag, name] : {std::pair{"avx512f", "AVX-512"}, {"avx2", "AVX2"}})
    if (has_word(flags, flag)) return name;
  return has_word(flags, "sse2") ? "SSE2" : "";
}

std::string spelled(rlim_t limit, double unit, const char* name) {
  if (limit == RLIM_INFINITY) return "unlimited";
  return formatted("%.7g%s", static_cast<double>(limit) / unit, name);
}

rlimit limit_of(__rlimit_resource resource) {
  rlimit limit{};
  ::getrlimit(resource, &limit);
  return limit;
}

// InfiniBand keeps what it sends in locked memory.
Check check_locked_memory(const SystemPaths& paths) {
  const rlimit limit = limit_of(RLIMIT_MEMLOCK);
  std::error_code error;
  const bool has_infiniband = !fs::is_empty(paths.infiniband, error) && !error;
  const std::string found = spelled(limit.rlim_cur, 1024, " KiB");
  if (has_infiniband && limit.rlim_cur != RLIM_INFINITY)
    return warn("locked memory", found + ", and InfiniBand needs more",
                "ulimit -l unlimited, or --ulimit memlock=-1 for a container");
  return ok("locked memory", found);
}

Check check_stack() {
  constexpr rlim_t kLeast = rlim_t{1} << 20;
  const rlimit limit = limit_of(RLIMIT_STACK);
  const std::string found = spelled(limit.rlim_cur, 1024, " KiB");
  if (limit.rlim_cur < kLeast) return warn("stack", found, "ulimit -s 8192");
  return ok("stack", found);
}

Check check_core_files() {
  const rlimit limit = limit_of(RLIMIT_CORE);
  return ok("core files", limit.rlim_cur == 0
                              ? "none are written; ulimit -c unlimited keeps one of a crash"
                              : spelled(limit.rlim_cur, 1024, " KiB"));
}

}  // namespace

Check check_processor(const SystemPaths& paths, int num_cores) {
  const std::string info = read_system_file(paths.proc / "cpuinfo");
  const auto flags = field(info, "flags");
  const std::string instructions = flags ? vector_instructions(*flags) : "";
  std::string found = concat(num_cores, num_cores == 1 ? " core" : " cores");
  if (!instructions.empty()) found += ", " + instructions;
  const GroupLimits limits = read_group_limits(paths);
  if (limits.cores && *limits.cores < num_cores) {
    const auto whole = std::max<int64_t>(1, std::llround(std::floor(*limits.cores)));
    return warn("processor",
                found + formatted(", of which the control group allows %.3g", *limits.cores),
                concat("--num-threads ", whole,
                       " over the ranks of this machine, or a larger "
                       "share: threads beyond it wait for each other"));
  }
  if (instructions == "SSE2")
    return warn("processor", found, "a processor with AVX2 computes several times as fast");
  return ok("processor", found);
}

Check check_memory(const SystemPaths& paths) {
  const std::string info = read_system_file(paths.proc / "meminfo");
  const auto total = memory_field(info, "MemTotal"), available = memory_field(info, "MemAvailable");
  if (!total || !available)
    return warn("memory", concat((paths.proc / "meminfo").string(), " does not tell"),
                "mount /proc");
  std::string found = concat(gib(*total), ", ", gib(*available), " available");
  double usable = *available;
  const GroupLimits limits = read_group_limits(paths);
  if (limits.memory && static_cast<double>(*limits.memory) < *total) {
    const auto allowed = static_cast<double>(*limits.memory);
    found += ", of which the control group allows " + gib(allowed);
    usable = std::min(usable, allowed);
  }
  if (usable < 2 * kGibi)
    return warn("memory", found, "end other programs, or take a machine or share with more");
  return ok("memory", found);
}

std::optional<int64_t> available_memory(const SystemPaths& paths) {
  const auto available = memory_field(read_system_file(paths.proc / "meminfo"), "MemAvailable");
  if (!available) return std::nullopt;
  const auto bytes = static_cast<int64_t>(*available);
  return std::min(bytes, read_group_limits(paths).free_memory.value_or(bytes));
}

Check check_shared_memory(const SystemPaths& paths) {
  const std::string name = paths.shared_memory.string();
  const std::string cure =
      "start the container with --shm-size 8g or --ipc host, or: mount -o "
      "remount,size=8g " +
      name;
  struct statvfs info {};
  if (::statvfs(name.c_str(), &info) != 0)
    return warn("shared memory", concat(name, ": ", std::strerror(errno)), cure);
  const double unit = static_cast<double>(info.f_frsize);
  const double size = static_cast<double>(info.f_blocks) * unit;
  const double free = static_cast<double>(info.f_bavail) * unit;
  const std::string found = concat(name, " has ", gib(size), ", ", gib(free), " free");
  if (free < kGibi) return warn("shared memory", found + ", and NCCL's ranks meet there", cure);
  return ok("shared memory", found);
}

Check check_open_files(const rlimit& limit) {
  constexpr rlim_t kLeast = 4096;
  const std::string found = concat(spelled(limit.rlim_cur, 1, ""), " at once, may be raised to ",
                                   spelled(limit.rlim_max, 1, ""));
  if (limit.rlim_cur >= kLeast) return ok("open files", found);
  return warn("open files", found + "; many ranks and shards need more",
              limit.rlim_max >= kLeast
                  ? concat("ulimit -n ", std::min<rlim_t>(limit.rlim_max, 65536))
                  : "raise the limit nofile in /etc/security/limits.conf");
}

std::vector<Check> check_limits(const SystemPaths& paths) {
  return {check_open_files(limit_of(RLIMIT_NOFILE)), check_locked_memory(paths), check_stack(),
          check_core_files()};
}

Check check_clock(std::time_t now) {
  constexpr std::time_t kYear2024 = 1704067200;
  std::tm parts{};
  char date[32] = "no date";
  if (::gmtime_r(&now, &parts) != nullptr)
    std::strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S UTC", &parts);
  if (now < kYear2024) return warn("clock", concat("it says ", date), "set the clock");
  timex state{};
  const int result = ::adjtimex(&state);  // changes nothing
  if (result < 0)
    return ok("clock", concat(date, "; whether it is kept right cannot be told here"));
  if ((state.status & STA_UNSYNC) != 0)
    return warn("clock", concat(date, ", and nothing keeps it right"),
                "start chrony or systemd-timesyncd: logs of several machines are compared by time");
  return ok("clock", concat(date, ", kept right"));
}

Check check_gnuplot() {
  try {
    const TemporaryFolder folder("doctor");
    for (const char* name : {"picture.png", "picture.svg"})
      draw_with_gnuplot(folder.path() / name, {}, "plot x\n", {});
    return ok("gnuplot", "draws PNG and SVG");
  } catch (const Error& error) {
    return warn("gnuplot", error.what(),
                "install gnuplot-nox; a run trains without it, and draws no pictures");
  }
}

Check check_locale() {
  const ::locale_t locale = ::newlocale(LC_ALL_MASK, "", nullptr);
  std::string name = "C";
  for (const char* variable : {"LANG", "LC_CTYPE", "LC_ALL"})  // the last that is set holds
    if (const char* value = std::getenv(variable); value != nullptr && *value != '\0') name = value;
  if (locale == nullptr)
    return warn("locale", name + " is not installed here, and other programs will complain of it",
                "export LC_ALL=C.UTF-8");
  ::freelocale(locale);
  return ok("locale", name);
}

}  // namespace moetron
