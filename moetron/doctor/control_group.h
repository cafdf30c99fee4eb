// What a container or a batch system allows this process, which nproc and free do not show.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace moetron {

// Where the system tells of itself; tests have others.
struct SystemPaths {
  std::filesystem::path proc = "/proc";
  std::filesystem::path groups = "/sys/fs/cgroup";
  std::filesystem::path infiniband = "/sys/class/infiniband";
  std::filesystem::path shared_memory = "/dev/shm";
};

struct GroupLimits {
  std::optional<double> cores;
  std::optional<int64_t> memory;       // bytes
  std::optional<int64_t> free_memory;  // bytes of it that are not in use; files' pages are not
};

// The tightest limits of this process's control groups and those above them, of either version.
// What cannot be read, or makes no sense, is no limit.
GroupLimits read_group_limits(const SystemPaths& paths);

// The beginning of a system's file, 1 MiB at most; empty where it cannot be read.
std::string read_system_file(const std::filesystem::path& path);

}  // namespace moetron
