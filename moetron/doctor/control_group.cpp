#include "moetron/doctor/control_group.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

#include "moetron/base/parse_number.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// The words of a file.
std::vector<std::string> words_of(const fs::path& path) {
  std::istringstream in(read_system_file(path));
  std::vector<std::string> words;
  for (std::string word; words.size() < 8 && in >> word;) words.push_back(word);
  return words;
}

std::optional<int64_t> integer_in(const fs::path& path) {
  const std::vector<std::string> words = words_of(path);
  return words.size() == 1 ? parse_number<int64_t>(words[0]) : std::nullopt;
}

template <class T>
void take_less(std::optional<T>& least, T value) {
  least = least ? std::min(*least, value) : value;
}

void take_cores(std::optional<int64_t> quota, std::optional<int64_t> period, GroupLimits& limits) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return;  // -1: none
  take_less(limits.cores, static_cast<double>(*quota) / static_cast<double>(*period));
}

// A number of memory.stat; 0 where it has none.
int64_t memory_stat(const fs::path& folder, std::string_view name) {
  std::istringstream words(read_system_file(folder / "memory.stat"));
  for (std::string word, value; words >> word >> value;) {
    if (word == name) return std::max<int64_t>(0, parse_number<int64_t>(value).value_or(0));
  }
  return 0;
}

// Names of files: the limit, and what is used; `cached`: what memory.stat calls the pages of files
// that the system takes away first.
void take_memory(const fs::path& folder, const char* limit, const char* used, const char* cached,
                 GroupLimits& limits) {
  constexpr int64_t kNoLimit = int64_t{1} << 60;  // the first version writes its greatest number
  const std::optional<int64_t> bytes = integer_in(folder / limit);
  if (!bytes || *bytes <= 0 || *bytes >= kNoLimit) return;
  take_less(limits.memory, *bytes);
  const std::optional<int64_t> in_use = integer_in(folder / used);
  if (!in_use || *in_use < 0 || *in_use >= kNoLimit) return;
  const int64_t kept = std::max<int64_t>(0, *in_use - memory_stat(folder, cached));
  take_less(limits.free_memory, std::max<int64_t>(0, *bytes - kept));
}

void read_unified(const fs::path& folder, GroupLimits& limits) {
  const std::vector<std::string> cpu = words_of(folder / "cpu.max");  // "max 100000"
  if (cpu.size() == 2)
    take_cores(parse_number<int64_t>(cpu[0]), parse_number<int64_t>(cpu[1]), limits);
  take_memory(folder, "memory.max", "memory.current", "inactive_file", limits);
}

// The folder of a group and those above it. A group may lie outside of what a container sees: its
// path then leads up, or to nothing, and the container's own root has the limits.
std::vector<fs::path> folders_of(const fs::path& root, const std::string& group) {
  std::vector<fs::path> folders{root};
  for (const fs::path& part : fs::path(group).relative_path()) {
    if (part == ".." || part == "." || part.empty()) continue;
    folders.push_back(folders.back() / part);
  }
  return folders;
}

bool has_controller(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const size_t end = std::min(list.find(','), list.size());
    if (list.substr(0, end) == name) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

}  // namespace

std::string read_system_file(const fs::path& path) {
  constexpr size_t kMost = size_t{1} << 20;
  std::ifstream file(path, std::ios::binary);
  std::string text(kMost, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

GroupLimits read_group_limits(const SystemPaths& paths) {
  GroupLimits limits;
  std::istringstream lines(read_system_file(paths.proc / "self" / "cgroup"));
  for (std::string line; std::getline(lines, line);) {  // "4:memory:/group" or "0::/group"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty())
      for (const fs::path& folder : folders_of(paths.groups, group)) read_unified(folder, limits);
    if (has_controller(controllers, "cpu"))
      for (const fs::path& folder : folders_of(paths.groups / "cpu", group))
        take_cores(integer_in(folder / "cpu.cfs_quota_us"),
                   integer_in(folder / "cpu.cfs_period_us"), limits);
    if (has_controller(controllers, "memory"))
      for (const fs::path& folder : folders_of(paths.groups / "memory", group))
        take_memory(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
                    limits);
  }
  return limits;
}

}  // namespace moetron
