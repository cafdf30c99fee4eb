#include "moetron/base/path.h"

#include <system_error>

#include "moetron/base/error.h"

namespace moetron {
namespace {

std::filesystem::file_status status_of(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  // An absent file is an answer, and sets `error` too.
  MT_CHECK_INPUT(!error || status.type() == std::filesystem::file_type::not_found,
                 "cannot look at ", path.string(), ": ", error.message());
  return status;
}

}  // namespace

bool path_exists(const std::filesystem::path& path) {
  return std::filesystem::exists(status_of(path));
}

bool is_folder(const std::filesystem::path& path) {
  return std::filesystem::is_directory(status_of(path));
}

std::string describe(const std::filesystem::filesystem_error& error) {
  return concat("cannot use ", error.path1().string(), ": ", error.code().message());
}

}  // namespace moetron
