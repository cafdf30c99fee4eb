#include "moetron/convert/megatron_folder.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <string_view>
#include <system_error>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/parse_number.h"
#include "moetron/base/path.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRankFolder = "mp_rank_";

std::string iteration_name(int64_t iteration) {
  const std::string number = std::to_string(iteration);
  return "iter_" + std::string(number.size() < 7 ? 7 - number.size() : 0, '0') + number;
}

bool is_sharded_iteration(const fs::path& folder) {
  return path_exists(folder / kDistMetadataFile);
}

// What Megatron noted as the last, where that can be read.
std::optional<fs::path> noted_iteration(const fs::path& folder) {
  if (!path_exists(folder / kLatestFile)) return std::nullopt;
  try {
    return find_iteration(folder);
  } catch (const InputError&) {
    return std::nullopt;
  }
}

}  // namespace

std::vector<std::string> rank_folders(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(kRankFolder) && path_exists(entry->path() / kMegatronFile))
      names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_torch_dist_folder(const fs::path& folder) {
  if (is_sharded_iteration(folder)) return true;
  const auto noted = noted_iteration(folder);
  return noted && is_sharded_iteration(*noted);
}

bool is_megatron_folder(const fs::path& folder) {
  const bool may_be = path_exists(folder / kLatestFile) || !rank_folders(folder).empty();
  return may_be && !is_torch_dist_folder(folder);
}

fs::path find_iteration(const fs::path& folder, std::optional<int64_t> step) {
  if (step) return folder / iteration_name(*step);
  if (is_sharded_iteration(folder) || !rank_folders(folder).empty()) return folder;
  const fs::path latest = folder / kLatestFile;
  MT_CHECK_INPUT(path_exists(latest), folder.string(), " has neither ", kLatestFile, " nor ",
                 kRankFolder, "* folders");
  std::string text = read_file(latest);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0)
    text.pop_back();
  if (text == "release") return folder / text;
  const auto iteration = parse_number<int64_t>(text);
  MT_CHECK_INPUT(iteration && *iteration >= 0, latest.string(), " holds \"", text.substr(0, 40),
                 "\", neither an iteration nor \"release\"");
  return folder / iteration_name(*iteration);
}

bool holds_iteration(const fs::path& folder, int64_t step) {
  return path_exists(folder / iteration_name(step));
}

fs::path arguments_file(const fs::path& folder, std::optional<int64_t> step) {
  const fs::path iteration = find_iteration(folder, step);
  if (is_sharded_iteration(iteration)) return iteration / kCommonFile;
  const std::vector<std::string> ranks = rank_folders(iteration);
  MT_CHECK_INPUT(!ranks.empty(), iteration.string(), " has no folder ", kRankFolder, "*");
  return iteration / ranks[0] / kMegatronFile;
}

}  // namespace moetron
