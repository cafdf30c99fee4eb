#include "moetron/checkpoint/write_checkpoint.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string_view>

#include <nlohmann/json.hpp>

#include "moetron/arch/adapter_config.h"
#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/block_writer.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/comm/communicator.h"
#include "moetron/formats/manifest.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

std::vector<CompanionFile> list_small_files(const CheckpointContent& content) {
  std::vector<CompanionFile> files{
      {content.is_adapter ? kAdapterConfigFile : kConfigFile, content.config}};
  files.insert(files.end(), content.companions.begin(), content.companions.end());
  files.push_back({kTrainerFile, content.trainer});
  return files;
}

// The index of shards; nothing where one file holds all weights.
void write_index(const fs::path& folder, const std::vector<TensorFile>& files) {
  SafetensorsIndex index;
  for (const TensorFile& file : files) {
    const bool is_alone = file.name == shard_file_name(0, 1) || file.name == kAdapterFile;
    if (file.content != FileContent::kWeights || is_alone) continue;
    index.add(file.name, file.layout);
  }
  if (!index.weight_map.empty()) write_safetensors_index(folder / kIndexFile, index);
}

ManifestFile write_small_file(const fs::path& folder, const CompanionFile& file) {
  write_file(folder / file.name, file.text);  // which syncs the folder that it is in, too
  return hash_bytes(file.name, std::as_bytes(std::span(file.text)));
}

void check_space(const fs::path& save, uint64_t needed) {
  const uint64_t available = fs::space(save).available;
  MT_CHECK_CONFIG(needed <= available, "cannot save to ", save.string(), ": the checkpoint needs ",
                  needed, " bytes, ", available, " are free");
}

// Makes the temporary folder, with the tensor files at their full size.
void prepare(const fs::path& save, const fs::path& temporary, const SavePlan& plan,
             const std::vector<CompanionFile>& small_files) {
  fs::create_directories(save);
  uint64_t bytes = plan.bytes();
  for (const CompanionFile& file : small_files) bytes += file.text.size();
  check_space(save, bytes);
  fs::create_directories(temporary / "state");
  for (const CompanionFile& file : small_files)
    fs::create_directories((temporary / file.name).parent_path());
  create_tensor_files(temporary, plan.files());
}

// Everything but the tensors, the manifest last.
void write_the_rest(const fs::path& folder, const std::vector<TensorFile>& files,
                    const std::vector<CompanionFile>& small_files,
                    std::vector<ManifestFile> written, int64_t step) {
  for (const CompanionFile& file : small_files) written.push_back(write_small_file(folder, file));
  write_index(folder, files);
  if (fs::exists(folder / kIndexFile)) written.push_back(hash_file(folder, kIndexFile));
  sync_folder(folder / "state");
  write_manifest(folder, std::move(written), {{"step", step}});
  sync_folder(folder);
}

// What a new checkpoint replaced. The new one is saved, whatever becomes of the old.
void remove_replaced(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (error)
    log_warning(
        concat("cannot delete the replaced checkpoint ", folder.string(), ": ", error.message()));
}

// Puts the finished folder in its place. One that is there is exchanged in one step where the file
// system can, so that a kill leaves the old or the new one. `replaced`: a name for the old one.
void move_into_place(const fs::path& temporary, const fs::path& folder, const fs::path& replaced) {
  std::error_code ignored;  // what cannot be looked at is there
  if (fs::symlink_status(folder, ignored).type() == fs::file_type::not_found)
    return rename_durable(temporary, folder);
  const bool exchanged =
      ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0;
  if (exchanged) {
    sync_folder(folder.parent_path());
    return remove_replaced(temporary);
  }
  rename_durable(folder, replaced);
  rename_durable(temporary, folder);
  remove_replaced(replaced);
}

void check_together(const SavePlan& plan, const SaveSnapshot& snapshot, Communicator* exchange) {
  const int rank = exchange != nullptr ? exchange->rank() : 0;
  const int num_ranks = exchange != nullptr ? exchange->size() : 1;
  MT_CHECK(plan.rank() == rank && plan.num_ranks() == num_ranks, "a save planned for rank ",
           plan.rank(), " of ", plan.num_ranks(), " is written by rank ", rank, " of ", num_ranks);
  MT_CHECK(plan.layout() == snapshot.layout(), "the snapshot was taken by another plan");
}

// What the system refuses is the user's to mend.
template <class Work>
void with_files_of(const fs::path& save, const Work& work) {
  try {
    work();
  } catch (const fs::filesystem_error& error) {
    throw ConfigError(concat("cannot save to ", save.string(), ": ", error.code().message()));
  }
}

// Rank 0's work on files, for all.
template <class Work>
void with_files_of(const fs::path& save, Communicator* world, const Work& work) {
  on_rank_zero(world, [&] {
    with_files_of(save, work);
    return 0;
  });
}

}  // namespace

void check_can_save(const fs::path& save, const SavePlan& plan) {
  with_files_of(save, [&] {
    const fs::path probe = temporary_folder(save, 0, choose_token());
    fs::create_directory(probe);
    fs::remove(probe);
    check_space(save, plan.bytes());
  });
}

fs::path write_checkpoint(const fs::path& save, int64_t step, const SavePlan& plan,
                          const SaveSnapshot& snapshot, Communicator* exchange) {
  const std::vector<TensorFile>& files = plan.files();
  const int64_t token = on_rank_zero(exchange, choose_token);
  const fs::path temporary = temporary_folder(save, step, token);
  const fs::path folder = checkpoint_folder(save, step);
  std::vector<CompanionFile> small_files;
  on_all_ranks(exchange, [&] {
    check_together(plan, snapshot, exchange);
    snapshot.wait();
    return 0;
  });
  try {
    with_files_of(save, exchange, [&] {
      small_files = list_small_files(snapshot.content());
      prepare(save, temporary, plan, small_files);
    });
    const std::vector<ManifestFile> written =
        write_tensor_files(temporary, plan, snapshot, exchange);
    with_files_of(save, exchange, [&] {
      write_the_rest(temporary, files, small_files, written, step);
      move_into_place(temporary, folder, temporary_folder(save, step, token + 1));
    });
  } catch (...) {
    std::error_code ignored;
    if (plan.rank() == 0) fs::remove_all(temporary, ignored);
    throw;
  }
  return folder;
}

}  // namespace moetron
