#include "moetron/convert/new_folder.h"

#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/file.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/folder_lock.h"
#include "moetron/base/log.h"
#include "moetron/base/temporary_folder.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPurpose = "convert";
constexpr std::string_view kHiddenName = ".moetron-convert-";

// A lock on a folder for the object's life, which the system frees when the process ends in
// whatever way.
class HeldFolder {
 public:
  explicit HeldFolder(fs::path path)
      : path_(std::move(path)),
        fd_(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)),
        is_held_(fd_ >= 0 && ::flock(fd_, LOCK_EX | LOCK_NB) == 0) {}
  ~HeldFolder() {
    if (fd_ >= 0) ::close(fd_);
  }
  HeldFolder(HeldFolder&& other) noexcept
      : path_(std::move(other.path_)),
        fd_(std::exchange(other.fd_, -1)),
        is_held_(std::exchange(other.is_held_, false)) {}
  HeldFolder& operator=(HeldFolder&&) = delete;

  const fs::path& path() const { return path_; }
  // False where another process has it, and where the file system has no locks.
  bool is_held() const { return is_held_; }

 private:
  fs::path path_;
  int fd_;
  bool is_held_;
};

// The folder that `save` is made in.
fs::path prepare(const fs::path& save) {
  const fs::path parent = save.has_parent_path() ? save.parent_path() : ".";
  try {
    const fs::file_type type = fs::symlink_status(save).type();
    const bool is_free = type == fs::file_type::not_found ||
                         (type == fs::file_type::directory && fs::is_empty(save));
    MT_CHECK_CONFIG(is_free, "save: ", save.string(),
                    " is there already: name another folder, or remove it");
    fs::create_directories(parent);
  } catch (const fs::filesystem_error& error) {
    throw ConfigError(concat("save: cannot write ", save.string(), ": ", error.code().message()));
  }
  return parent;
}

// Those that no process has.
std::vector<HeldFolder> leftovers(const fs::path& parent) {
  std::vector<HeldFolder> found;
  std::error_code error;
  for (fs::directory_iterator entry(parent, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!entry->path().filename().string().starts_with(kHiddenName)) continue;
    HeldFolder folder(entry->path());
    if (folder.is_held()) found.push_back(std::move(folder));
  }
  return found;
}

void remove_folders(const std::vector<HeldFolder>& folders) {
  for (const HeldFolder& folder : folders) {
    std::error_code error;
    fs::remove_all(folder.path(), error);
    if (error)
      log_warning(concat("cannot delete ", folder.path().string(),
                         ", which a killed command left: ", error.message()));
    else
      log_info(concat("deleted ", folder.path().string(), ", which a killed command left"));
  }
}

void check_room(const fs::path& save, const fs::path& parent, uint64_t bytes) {
  std::error_code error;
  const uint64_t available = fs::space(parent, error).available;
  MT_CHECK_CONFIG(!error, "save: cannot write ", save.string(), ": ", error.message());
  MT_CHECK_CONFIG(bytes <= available, "save: ", save.string(), " needs ", bytes, " bytes, ",
                  available, " are free");
}

}  // namespace

class NewFolder::Hidden {
 public:
  explicit Hidden(const fs::path& parent) : folder_(kPurpose, parent), lock_(folder_.path()) {}

  const fs::path& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
  HeldFolder lock_;
};

// "out/" is "out".
NewFolder::NewFolder(const fs::path& save, uint64_t bytes)
    : save_(save.has_filename() ? save : save.parent_path()) {
  const fs::path parent = prepare(save_);
  remove_folders([&] {
    // A folder that has just been made, and is not locked yet, must not look like one that was
    // left.
    const FolderLock turn(parent);
    std::vector<HeldFolder> left = leftovers(parent);
    hidden_ = std::make_unique<Hidden>(parent);
    return left;
  }());
  check_room(save_, parent, bytes);
  path_ = hidden_->path() / "model";
  fs::create_directory(path_);  // which gets the usual permissions
}

NewFolder::~NewFolder() = default;

void NewFolder::commit() {
  sync_folder(path_);
  rename_durable(path_, save_);
}

}  // namespace moetron
