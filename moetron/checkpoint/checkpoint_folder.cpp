#include "moetron/checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <exception>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/trainer_state.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_records.h"
#include "moetron/formats/manifest.h"
#include "moetron/formats/safetensors_index.h"

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

// What a folder holds; nothing where it is missing. Of a folder that cannot be read to its end
// nothing is known.
std::vector<std::string> list_names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  if (error == std::errc::no_such_file_or_directory) return names;
  for (; !error && entry != fs::directory_iterator(); entry.increment(error))
    names.push_back(entry->path().filename().string());
  MT_CHECK_INPUT(!error, "cannot list ", folder.string(), ": ", error.message());
  return names;
}

// What this rank checks of a folder that all ranks check.
ManifestPart part_of(Communicator* world, Verify verify) {
  if (verify == Verify::kSizes) return {.index = 0, .count = 0};
  if (world == nullptr) return {};
  return {static_cast<uint64_t>(world->rank()), static_cast<uint64_t>(world->size())};
}

// Of a single rank, which has the machine for itself: enough for a disk as fast as memory.
int num_reading_threads(Communicator* world) {
  constexpr unsigned kEnough = 8;
  const bool is_alone = world == nullptr || world->size() == 1;
  return is_alone ? static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, kEnough))
                  : 1;
}

bool is_first_rank(Communicator* world) {
  return world == nullptr || world->rank() == 0;
}

void say_unverified(const fs::path& folder) {
  log_info(concat("no-verify: the blocks of ", folder.string(), " are not checked"));
}

// Throws InputError unless everything in the folder is as it was written, and of the step that its
// name says: a folder that was renamed, or copied over another's name, would be a run's past at
// another place. Of the blocks, this rank's part.
void check_resumable(const fs::path& folder, int64_t step, Communicator* world, Verify verify) {
  check_checkpoint(folder);
  const Json extra = verify_manifest(folder, part_of(world, verify), num_reading_threads(world));
  const fs::path trainer = folder / kTrainerFile;
  const int64_t saved = parse_trainer_state(read_json(trainer), trainer).step;
  const std::string rename_it = concat("; rename it to ", folder_name(saved));
  MT_CHECK_INPUT(saved == step, folder.string(), " holds step ", saved, " by its ", kTrainerFile,
                 ", not step ", step, rename_it);
  const bool agrees = !extra.is_object() || !extra.contains("step") || extra["step"] == step;
  MT_CHECK_INPUT(agrees, folder.string(), " holds step ", extra.value("step", Json()).dump(),
                 " by its manifest.json, not step ", step);
}

// Why the folder cannot be resumed, by what this rank has checked; empty: it can. Whatever keeps it
// from being read is a reason.
std::string why_not_resumable(const fs::path& folder, int64_t step, Communicator* world,
                              Verify verify) {
  try {
    check_resumable(folder, step, world, verify);
    return "";
  } catch (const fs::filesystem_error& error) {
    return describe(error);
  } catch (const std::exception& error) {
    return first_line(error);
  }
}

// The reason of the first rank that has one.
std::string shared_reason(const fs::path& folder, int64_t step, Communicator* world,
                          Verify verify) {
  const std::string mine = why_not_resumable(folder, step, world, verify);
  if (world == nullptr || world->size() == 1) return mine;
  for (const std::string& reason : gather_texts(*world, mine))
    if (!reason.empty()) return reason;
  return "";
}

constexpr int64_t kNone = -1;

// A run that saves into the folder meanwhile puts its next checkpoint there and removes an old one:
// where none of those listed loads and others stand there now, these are looked at. Not for ever.
constexpr int kMostLooks = 10;

// Passes over newer ones that are damaged, with a warning each. Collective over `world`.
int64_t newest_sound_step(const fs::path& save, Communicator* world, Verify verify,
                          int looks = kMostLooks) {
  std::vector<int64_t> listed;  // by rank 0
  const auto num_steps = static_cast<size_t>(on_rank_zero(world, [&] {
    listed = list_steps(save);
    return static_cast<int64_t>(listed.size());
  }));
  std::vector<std::string> left_out, reasons;
  for (size_t i = 0; i < num_steps; ++i) {
    const int64_t step = on_rank_zero(world, [&] { return listed[i]; });
    const fs::path folder = checkpoint_folder(save, step);
    const std::string reason = shared_reason(folder, step, world, verify);
    if (reason.empty()) {
      if (is_first_rank(world)) {
        for (const std::string& sentence : left_out) log_warning(sentence);
      }
      if (verify == Verify::kSizes) say_unverified(folder);
      return step;
    }
    left_out.push_back(concat("checkpoint ", folder.string(), " is left out: ", reason));
    reasons.push_back(reason);
  }
  if (num_steps == 0) return kNone;
  const bool has_changed =
      on_rank_zero(world, [&] { return static_cast<int64_t>(list_steps(save) != listed); }) != 0;
  if (has_changed && looks > 1) return newest_sound_step(save, world, verify, looks - 1);
  std::string all;
  for (const std::string& reason : reasons) all += concat(all.empty() ? "" : "; ", reason);
  throw InputError(concat("none of the ", num_steps, " checkpoints in ", save.string(),
                          " can be loaded: ", all));
}

}  // namespace

fs::path checkpoint_folder(const fs::path& save, int64_t step) {
  return save / folder_name(step);
}

fs::path temporary_folder(const fs::path& save, int64_t step, int64_t token) {
  return save / concat(".", folder_name(step), ".", token, kTemporarySuffix);
}

int64_t choose_token() {
  std::random_device random;
  return static_cast<int64_t>(random());
}

std::vector<int64_t> list_steps(const fs::path& save) {
  std::vector<int64_t> steps;
  for (const std::string& name : list_names(save)) {
    if (const auto step = step_of(name)) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

void remove_leftovers(const fs::path& save) {
  for (const std::string& name : list_names(save)) {
    if (!name.starts_with('.') || !name.ends_with(kTemporarySuffix)) continue;
    if (!step_of(name.substr(1, name.find('.', 1) - 1))) continue;
    std::error_code error;
    fs::remove_all(save / name, error);
    if (error)
      log_warning(concat("cannot delete ", (save / name).string(),
                         ", which a killed run left: ", error.message()));
  }
}

std::optional<FoundCheckpoint> find_latest(const fs::path& save, Communicator* world,
                                           Verify verify) {
  const int64_t found = newest_sound_step(save, world, verify);
  if (found == kNone) return std::nullopt;
  return FoundCheckpoint{checkpoint_folder(save, found), found};
}

FoundCheckpoint find_step(const fs::path& save, int64_t step, Communicator* world, Verify verify) {
  on_rank_zero(world, [&] {
    const std::vector<int64_t> steps = list_steps(save);
    std::string there;
    for (const int64_t other : steps) there += concat(there.empty() ? "" : ", ", other);
    MT_CHECK_INPUT(std::ranges::count(steps, step) == 1, save.string(), " holds no step ", step,
                   there.empty() ? ", nor any other" : concat("; it holds ", there));
    return 0;
  });
  const fs::path folder = checkpoint_folder(save, step);
  const std::string reason = shared_reason(folder, step, world, verify);
  MT_CHECK_INPUT(reason.empty(), reason);
  if (verify == Verify::kSizes) say_unverified(folder);
  return {folder, step};
}

void check_model_files(const fs::path& folder, Communicator* world, Verify verify,
                       std::optional<int64_t> iteration) {
  enum Kind : int64_t { kUnknown, kManifest, kMegatron };
  const int64_t kind = on_rank_zero(world, [&] {
    if (!is_folder(folder)) return kUnknown;
    if (path_exists(folder / kManifestFile)) return kManifest;
    const bool is_megatron =
        iteration || is_torch_dist_folder(folder) || is_megatron_folder(folder);
    return is_megatron && !holds_model_files(folder) ? kMegatron : kUnknown;
  });
  if (kind == kUnknown) return;
  if (kind == kMegatron) return check_megatron_files(folder, world, verify, iteration);
  on_all_ranks(world, [&] {
    try {
      verify_manifest(folder, part_of(world, verify), num_reading_threads(world));
    } catch (const InputError& error) {
      throw InputError(concat(error.what(), "; where the change is meant, remove ",
                              (folder / kManifestFile).string()));
    }
    return 0;
  });
  if (verify == Verify::kSizes) say_unverified(folder);
}

void check_megatron_files(const fs::path& folder, Communicator* world, Verify verify,
                          std::optional<int64_t> iteration) {
  if (verify == Verify::kSizes) return say_unverified(folder);
  const auto unknown = on_all_ranks(world, [&] {
    return static_cast<int64_t>(check_megatron_records(folder, part_of(world, verify),
                                                       num_reading_threads(world), iteration));
  });
  const int64_t num_unknown = std::accumulate(unknown.begin(), unknown.end(), int64_t{0});
  if (num_unknown > 0 && is_first_rank(world))
    log_warning(concat("torch.save wrote no CRCs into ", folder.string(), ": ", num_unknown,
                       " parts of its tensors are not checked"));
}

void check_checkpoint(const fs::path& folder) {
  MT_CHECK_INPUT(is_folder(folder), folder.string(), " is no folder");
  MT_CHECK_INPUT(path_exists(folder / kManifestFile), folder.string(),
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
