#include "moetron/checkpoint/set_aside.h"

#include <cstdint>
#include <string>
#include <system_error>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// "KIND_1", or the first number that neither the folder nor the metrics' neighbours have.
std::string free_name(const fs::path& save, const fs::path& metrics, const char* kind) {
  for (int number = 1;; ++number) {
    const std::string name = concat(kind, "_", number);
    const bool is_taken = path_exists(save / name) ||
                          (!metrics.empty() && path_exists(metrics.string() + "." + name));
    if (!is_taken) return name;
  }
}

fs::path make_aside(const fs::path& save, const std::string& name) {
  fs::path aside = save / name;
  std::error_code error;
  fs::create_directory(aside, error);
  MT_CHECK_CONFIG(!error, "save: cannot make the folder ", aside.string(), ": ", error.message());
  return aside;
}

void move_if_there(const fs::path& from, const fs::path& to) {
  if (path_exists(from)) rename_durable(from, to);
}

}  // namespace

fs::path set_aside(const fs::path& save, const fs::path& metrics) {
  const std::string name = free_name(save, metrics, "before_restart");
  const fs::path aside = make_aside(save, name);
  for (const int64_t step : list_steps(save)) {
    const fs::path folder = checkpoint_folder(save, step);
    rename_durable(folder, aside / folder.filename());
  }
  move_if_there(save / "metrics.jsonl", aside / "metrics.jsonl");
  move_if_there(save / "loss.png", aside / "loss.png");
  if (!metrics.empty()) move_if_there(metrics, metrics.string() + "." + name);
  return aside;
}

fs::path set_damaged_aside(const fs::path& save, int64_t step) {
  const fs::path folder = checkpoint_folder(save, step);
  const fs::path aside = make_aside(save, free_name(save, {}, "damaged")) / folder.filename();
  rename_durable(folder, aside);
  return aside;
}

}  // namespace moetron
