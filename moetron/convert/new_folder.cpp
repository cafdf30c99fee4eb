#include "moetron/convert/new_folder.h"

#include "moetron/base/error.h"
#include "moetron/base/file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// The folder that `save` is made in.
fs::path prepare(const fs::path& save, uint64_t bytes) {
  const fs::path parent = save.has_parent_path() ? save.parent_path() : ".";
  try {
    const fs::file_type type = fs::symlink_status(save).type();
    const bool is_free = type == fs::file_type::not_found ||
                         (type == fs::file_type::directory && fs::is_empty(save));
    MT_CHECK_CONFIG(is_free, "save: ", save.string(),
                    " is there already: name another folder, or remove it");
    fs::create_directories(parent);
    const uint64_t available = fs::space(parent).available;
    MT_CHECK_CONFIG(bytes <= available, "save: ", save.string(), " needs ", bytes, " bytes, ",
                    available, " are free");
  } catch (const fs::filesystem_error& error) {
    throw ConfigError(concat("save: cannot write ", save.string(), ": ", error.code().message()));
  }
  return parent;
}

}  // namespace

// "out/" is "out".
NewFolder::NewFolder(const fs::path& save, uint64_t bytes)
    : save_(save.has_filename() ? save : save.parent_path()),
      hidden_("convert", prepare(save_, bytes)),
      path_(hidden_.path() / "model") {
  fs::create_directory(path_);  // which gets the usual permissions
}

void NewFolder::commit() {
  sync_folder(path_);
  rename_durable(path_, save_);
}

}  // namespace moetron
