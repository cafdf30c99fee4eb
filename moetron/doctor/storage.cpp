#include "moetron/doctor/storage.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/formatted.h"
#include "moetron/base/path.h"
#include "moetron/base/seconds_since.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/base/units.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kBytes = size_t{16} << 20;
struct FileSystem {
  long type;
  const char* name;
  const char* trouble;  // empty: none
};
constexpr const char* kInMemory = "lies in memory, and is lost with the machine";
constexpr const char* kOfContainer = "is the container's own layer, and is lost with it";
constexpr FileSystem kFileSystems[] = {{0xef53, "ext4", ""},
                                       {0x58465342, "xfs", ""},
                                       {0x9123683e, "btrfs", ""},
                                       {0x2fc12fc1, "zfs", ""},
                                       {0x6969, "nfs", ""},
                                       {0x0bd00bd0, "lustre", ""},
                                       {0x47504653, "gpfs", ""},
                                       {0x19830326, "beegfs", ""},
                                       {0x00c36400, "ceph", ""},
                                       {0xff534d42, "cifs", ""},
                                       {0x65735546, "fuse", ""},
                                       {0x01021997, "9p", ""},
                                       {0x01021994, "tmpfs", kInMemory},
                                       {0x858458f6, "ramfs", kInMemory},
                                       {0x794c7630, "overlay", kOfContainer}};

const FileSystem* find_file_system(long type) {
  const auto* found = std::find_if(std::begin(kFileSystems), std::end(kFileSystems),
                                   [&](const FileSystem& one) { return one.type == type; });
  return found == std::end(kFileSystems) ? nullptr : found;
}

// The folder, or what is there of the way to it.
fs::path nearest_there(const fs::path& folder) {
  fs::path place = fs::absolute(folder);
  while (!is_folder(place) && place.has_relative_path()) place = place.parent_path();
  return place;
}

struct Trial {
  double seconds = 0;       // of a small file until it and its name are on the disk
  double rate = 0;          // bytes a second of a large one
  double clock_offset = 0;  // seconds that the files' time is ahead of ours
  bool has_locks = false;
};

Trial try_out(const fs::path& place, const TryLocks& try_locks) {
  constexpr int kRepeats = 3;
  const TemporaryFolder folder("doctor", place);
  Trial trial;
  auto begin = Clock::now();
  for (int i = 0; i < kRepeats; ++i) write_file(folder.path() / concat("small_", i), "moetron");
  trial.seconds = seconds_since(begin) / kRepeats;
  const std::string bytes(kBytes, 'm');
  begin = Clock::now();
  write_file(folder.path() / "large", bytes);
  trial.rate = static_cast<double>(kBytes) / seconds_since(begin);
  MT_CHECK_CONFIG(read_file(folder.path() / "large") == bytes, place.string(),
                  " gives back other bytes than were written");
  struct stat info {};
  if (::stat((folder.path() / "large").c_str(), &info) == 0)
    trial.clock_offset = std::difftime(info.st_mtime, std::time(nullptr));
  trial.has_locks = try_locks(folder.path());
  return trial;
}

struct Trouble {
  std::string what, cure;
};

std::optional<Trouble> trouble_of(const Trial& trial, const FileSystem* kind, double free) {
  constexpr double kSlow = 0.5, kClock = 10;
  if (kind != nullptr && *kind->trouble != '\0')
    return Trouble{kind->trouble, "save on a disk or a shared file system"};
  if (!trial.has_locks)
    return Trouble{"has no locks that keep a second run out",
                   "mount it with locks (flock for Lustre, local_lock or lockd for NFS), or see to "
                   "it that one run saves there at a time"};
  if (free < 10 * kGibi)
    return Trouble{"is nearly full", "make room: --dry-run tells the size of a checkpoint"};
  if (trial.seconds > kSlow)
    return Trouble{"is slow to make a file durable", "save elsewhere, or more rarely"};
  if (std::abs(trial.clock_offset) > kClock)
    return Trouble{formatted("has another time, by %.0f s", trial.clock_offset),
                   "set the clocks of this machine and of the file server"};
  return std::nullopt;
}

}  // namespace

std::string file_system_name(long type) {
  const FileSystem* kind = find_file_system(type);
  return kind != nullptr ? kind->name : formatted("file system 0x%lx", type);
}

Check check_storage(const fs::path& folder, const TryLocks& try_locks) {
  try {
    const fs::path place = nearest_there(folder);
    struct statfs kind {};
    struct statvfs size {};
    MT_CHECK_CONFIG(::statfs(place.c_str(), &kind) == 0 && ::statvfs(place.c_str(), &size) == 0,
                    place.string(), ": ", std::strerror(errno));
    const double free = static_cast<double>(size.f_bavail) * static_cast<double>(size.f_frsize);
    const auto type = static_cast<long>(kind.f_type);
    const Trial trial = try_out(place, try_locks);
    const std::string found =
        concat(place.string(), ": ", file_system_name(type),
               formatted(", %.3g GiB free, a durable file in %.2g ms, %.3g MB/s", free / kGibi,
                         trial.seconds * 1e3, trial.rate / 1e6));
    if (const auto trouble = trouble_of(trial, find_file_system(type), free))
      return warn("save", concat(found, "; it ", trouble->what), trouble->cure);
    return ok("save", found + ", locks");
  } catch (const Error& error) {
    return fail("save", error.what(), "name a folder in --save that this user may write");
  }
}

}  // namespace moetron
