#include "moetron/checkpoint/write_checkpoint.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string_view>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/hash.h"
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

std::vector<CheckpointFile> list_small_files(const CheckpointContent& content) {
  std::vector<CheckpointFile> files{{kConfigFile, content.config}};
  if (!content.generation_config.empty()) {
    files.push_back({kGenerationConfigFile, content.generation_config});
  }
  files.insert(files.end(), content.tokenizer_files.begin(), content.tokenizer_files.end());
  files.push_back({kTrainerFile, content.trainer});
  return files;
}

// The index of shards; nothing where one file holds all weights.
void write_index(const fs::path& folder, const std::vector<TensorFile>& files) {
  SafetensorsIndex index;
  for (const TensorFile& file : files) {
    if (file.content != FileContent::kWeights || file.name == shard_file_name(0, 1)) continue;
    for (const SafetensorsEntry& tensor : file.layout.tensors) {
      index.weight_map[tensor.name] = file.name;
      index.total_size += tensor.bytes;
    }
  }
  if (!index.weight_map.empty()) write_safetensors_index(folder / kIndexFile, index);
}

ManifestFile write_small_file(const fs::path& folder, const CheckpointFile& file) {
  write_file(folder / file.name, file.text);
  ManifestFile entry{file.name, file.text.size(), {}};
  const auto bytes = std::as_bytes(std::span(file.text.data(), file.text.size()));
  for (uint64_t begin = 0; begin < bytes.size(); begin += kManifestBlockBytes) {
    const uint64_t count = std::min<uint64_t>(kManifestBlockBytes, bytes.size() - begin);
    entry.blocks.push_back(hash_hex(bytes.subspan(begin, count)));
  }
  return entry;
}

void check_space(const fs::path& save, uint64_t needed) {
  const uint64_t available = fs::space(save).available;
  MT_CHECK_CONFIG(needed <= available, "cannot save to ", save.string(), ": the checkpoint needs ",
                  needed, " bytes, ", available, " are free");
}

// Makes the temporary folder, with the tensor files at their full size.
void prepare(const fs::path& save, const fs::path& temporary, const std::vector<TensorFile>& files,
             const std::vector<CheckpointFile>& small_files) {
  fs::create_directories(save);
  remove_leftovers(save);
  uint64_t bytes = 0;
  for (const TensorFile& file : files) bytes += file.layout.file_bytes;
  for (const CheckpointFile& file : small_files) bytes += file.text.size();
  check_space(save, bytes);
  fs::create_directories(temporary / "state");
  create_tensor_files(temporary, files);
}

// Everything but the tensors, the manifest last.
void write_the_rest(const fs::path& folder, const std::vector<TensorFile>& files,
                    const std::vector<CheckpointFile>& small_files,
                    std::vector<ManifestFile> written, int64_t step) {
  for (const CheckpointFile& file : small_files) written.push_back(write_small_file(folder, file));
  write_index(folder, files);
  if (fs::exists(folder / kIndexFile)) written.push_back(hash_file(folder, kIndexFile));
  sync_folder(folder / "state");
  write_manifest(folder, std::move(written), {{"step", step}});
  sync_folder(folder);
}

// Puts the finished folder in its place. One that is there is exchanged in one step where the file
// system can, so that a kill leaves the old or the new one.
void move_into_place(const fs::path& temporary, const fs::path& folder) {
  if (!fs::exists(folder)) return rename_durable(temporary, folder);
  const bool exchanged =
      ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0;
  if (exchanged) {
    sync_folder(folder.parent_path());
    fs::remove_all(temporary);
    return;
  }
  fs::remove_all(folder);
  rename_durable(temporary, folder);
}

void check_together(const SavePlan& plan, const SaveSnapshot& snapshot, Communicator* exchange) {
  const int rank = exchange != nullptr ? exchange->rank() : 0;
  const int num_ranks = exchange != nullptr ? exchange->size() : 1;
  MT_CHECK(plan.rank() == rank && plan.num_ranks() == num_ranks, "a save planned for rank ",
           plan.rank(), " of ", plan.num_ranks(), " is written by rank ", rank, " of ", num_ranks);
  MT_CHECK(plan.layout() == snapshot.layout(), "the snapshot was taken by another plan");
}

// Rank 0's work on files, for all: what the system refuses is the user's to mend.
template <class Work>
void with_files_of(const fs::path& save, Communicator* world, const Work& work) {
  on_rank_zero(world, [&] {
    try {
      work();
    } catch (const fs::filesystem_error& error) {
      throw ConfigError(concat("cannot save to ", save.string(), ": ", error.code().message()));
    }
    return 0;
  });
}

}  // namespace

fs::path write_checkpoint(const fs::path& save, int64_t step, const SavePlan& plan,
                          const SaveSnapshot& snapshot, Communicator* exchange) {
  const std::vector<TensorFile>& files = plan.files();
  const fs::path temporary = temporary_folder(save, step);
  const fs::path folder = checkpoint_folder(save, step);
  std::vector<CheckpointFile> small_files;
  on_all_ranks(exchange, [&] {
    check_together(plan, snapshot, exchange);
    return 0;
  });
  try {
    with_files_of(save, exchange, [&] {
      small_files = list_small_files(snapshot.content());
      prepare(save, temporary, files, small_files);
    });
    const std::vector<ManifestFile> written =
        write_tensor_files(temporary, plan, snapshot, exchange);
    with_files_of(save, exchange, [&] {
      write_the_rest(temporary, files, small_files, written, step);
      move_into_place(temporary, folder);
    });
  } catch (...) {
    std::error_code ignored;
    if (plan.rank() == 0) fs::remove_all(temporary, ignored);
    throw;
  }
  return folder;
}

}  // namespace moetron
