#include "moetron/base/temporary_folder.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "moetron/base/error.h"

namespace moetron {

namespace fs = std::filesystem;

namespace {

fs::path make_folder(const fs::path& where, const std::string& begin) {
  std::string name = where / (begin + "-XXXXXX");
  MT_CHECK_CONFIG(::mkdtemp(name.data()) != nullptr, "cannot write to ", where.string(), ": ",
                  std::strerror(errno));
  return name;
}

fs::path folder_of_temporary_files() {
  std::error_code error;
  fs::path folder = fs::temp_directory_path(error);
  MT_CHECK_CONFIG(!error, "there is no folder for temporary files (TMPDIR): ", error.message());
  return folder;
}

}  // namespace

TemporaryFolder::TemporaryFolder(const std::string& purpose)
    : path_(make_folder(folder_of_temporary_files(), "moetron-" + purpose)) {}

TemporaryFolder::TemporaryFolder(const std::string& purpose, const fs::path& where)
    : path_(make_folder(where, ".moetron-" + purpose)) {}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace moetron
