#include "moetron/base/temporary_folder.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "moetron/base/error.h"

namespace moetron {

namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder(const std::string& purpose) {
  std::error_code error;
  std::string name = fs::temp_directory_path(error) / concat("moetron-", purpose, "-XXXXXX");
  MT_CHECK_CONFIG(!error, "there is no folder for temporary files (TMPDIR): ", error.message());
  MT_CHECK_CONFIG(::mkdtemp(name.data()) != nullptr, "cannot make the folder ", name, ": ",
                  std::strerror(errno));
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace moetron
