#include "moetron/checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/formats/manifest.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";
constexpr std::string_view kTemporarySuffix = ".tmp";

std::string folder_name(int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step_%07lld", static_cast<long long>(step));
  return name;
}

// The step in "step_0000100"; nothing for any other name.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (folder_name(step) != name) return std::nullopt;
  return step;
}

}  // namespace

fs::path checkpoint_folder(const fs::path& save, int64_t step) {
  return save / folder_name(step);
}

fs::path temporary_folder(const fs::path& save, int64_t step) {
  return save / concat(".", folder_name(step), kTemporarySuffix);
}

std::vector<int64_t> list_steps(const fs::path& save) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(save, error)) {
    const auto step = step_of(entry.path().filename().string());
    if (step && entry.is_directory(error)) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

void remove_leftovers(const fs::path& save) {
  std::vector<fs::path> leftovers;
  for (const fs::directory_entry& entry : fs::directory_iterator(save)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with('.') || !name.ends_with(kTemporarySuffix)) continue;
    if (step_of(name.substr(1, name.size() - 1 - kTemporarySuffix.size()))) {
      leftovers.push_back(entry.path());
    }
  }
  for (const fs::path& leftover : leftovers) fs::remove_all(leftover);
}

std::optional<FoundCheckpoint> find_latest(const fs::path& save, Communicator* world) {
  constexpr int64_t kNone = -1;
  const int64_t found = on_rank_zero(world, [&] {
    for (const int64_t step : list_steps(save)) {
      const fs::path folder = checkpoint_folder(save, step);
      try {
        check_checkpoint(folder);
        verify_manifest(folder);
        return step;
      } catch (const InputError& error) {
        log_warning(concat("checkpoint ", folder.string(), " is left out: ", error.what()));
      }
    }
    return kNone;
  });
  if (found == kNone) return std::nullopt;
  return FoundCheckpoint{checkpoint_folder(save, found), found};
}

void check_checkpoint(const fs::path& folder) {
  MT_CHECK_INPUT(fs::is_directory(folder), folder.string(), " is no folder");
  MT_CHECK_INPUT(fs::exists(folder / "manifest.json"), folder.string(),
                 " is no checkpoint: it holds no manifest.json");
  for (const ManifestFile& file : read_manifest(folder)) {
    const fs::path path = folder / file.name;
    std::error_code error;
    const uint64_t size = fs::file_size(path, error);
    MT_CHECK_INPUT(!error, "cannot read ", path.string(), ": ", error.message());
    MT_CHECK_INPUT(size == file.size, path.string(), " has ", size, " bytes, its manifest says ",
                   file.size);
  }
}

}  // namespace moetron
