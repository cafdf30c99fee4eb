// Checkpoints (DESIGN: idea 3 and section 6). SAVE/step_0000100/ is a Hugging Face model directory
// (config.json, model.safetensors or shards with an index, tokenizer files) with the subfolder
// state/ (optimizer.safetensors, trainer.json) and manifest.json, which lists size and hashes of
// every file. It appears whole or not at all: files are written and fsynced in a hidden temporary
// folder, which is renamed last. Nothing in it depends on how the run was laid out over ranks.
//
// A save is plan_save() (save_plan.h: once a run), SaveSnapshot (save_snapshot.h) and
// write_checkpoint() (write_checkpoint.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "moetron/autograd/parameter.h"
#include "moetron/base/json.h"
#include "moetron/formats/companions.h"

namespace moetron {

class Communicator;

// What one rank brings to a checkpoint. `weights` and `states` are the boxes of named global
// tensors that this rank holds: rows or columns where a tensor is divided, other experts' tensors
// than its neighbours', a stretch of a tensor as a few boxes (part of a row, whole rows, part of a
// row). Together the ranks hold every element of each tensor that any of them names, once; but a
// box may be the same on several ranks (replicas), and is then taken from any. Padding is in no
// box. All else is taken from rank 0.
//
// A checkpoint of low-rank updates is a PEFT adapter: its weights are in adapter_model.safetensors,
// and adapter_config.json takes the place of config.json; the model is not written again.
struct CheckpointContent {
  std::string config;                     // text of config.json, or of adapter_config.json
  bool is_adapter = false;                // the same for every save of a run
  std::vector<CompanionFile> companions;  // tokenizer, generation_config.json, code
  std::vector<NamedSlice> weights;        // on the host or on a device
  std::vector<NamedSlice> states;         // "exp_avg.NAME", "exp_avg_sq.NAME", "master.NAME"
  std::string trainer;                    // text of state/trainer.json
};

// SAVE/step_0000100.
std::filesystem::path checkpoint_folder(const std::filesystem::path& save, int64_t step);

// What of the files that a manifest lists is compared with it.
enum class Verify { kBlocks, kSizes };
constexpr Verify verification(bool of_blocks) {
  return of_blocks ? Verify::kBlocks : Verify::kSizes;
}

struct FoundCheckpoint {
  std::filesystem::path folder;
  int64_t step = 0;
};

// The newest checkpoint in `save` whose manifest, sizes and hashes are right, and whose step is the
// one that its name says; none where the folder is missing or holds no step folder. Each newer but
// damaged one costs one warning that names file and reason. InputError where the folder cannot be
// listed, or where there are step folders and none can be loaded, with the reason of each: there
// is a run's past, and nobody may take it for a fresh start. Reads what it checks once. Collective
// over `world` (null: a single rank): rank 0 lists the folder, all share the blocks, and all return
// or throw the same.
std::optional<FoundCheckpoint> find_latest(const std::filesystem::path& save, Communicator* world,
                                           Verify verify = Verify::kBlocks);

// The checkpoint of `step`, checked in the same way. InputError where it is missing, with the steps
// that are there, or damaged. Collective as above.
FoundCheckpoint find_step(const std::filesystem::path& save, int64_t step, Communicator* world,
                          Verify verify = Verify::kBlocks);

// Throws InputError, naming file and block, unless every file that the folder's manifest lists has
// its size and hashes. A folder without a manifest is checked as check_megatron_files() does where
// it holds such files and no others, and passes as it is otherwise. For whoever reads a checkpoint
// that find_latest() did not find. Reads all files once; collective over `world` (null: a single
// rank), whose ranks share them, and all throw the same. `iteration`: of Megatron's files.
void check_model_files(const std::filesystem::path& folder, Communicator* world,
                       Verify verify = Verify::kBlocks, std::optional<int64_t> iteration = {});
// The same by the CRCs that torch.save noted of the weights in Megatron's files, of either format;
// a warning says where there are none.
void check_megatron_files(const std::filesystem::path& folder, Communicator* world,
                          Verify verify = Verify::kBlocks, std::optional<int64_t> iteration = {});

// Throws InputError, naming file and reason, unless `folder` is a checkpoint whose every file has
// its size (cheap; hashes are find_latest's business).
void check_checkpoint(const std::filesystem::path& folder);

// Fills `weights` and `states` (either may be empty) from a checkpoint and returns trainer.json.
// Every slice must be in the files, with its global shape; InputError names file, tensor and both
// shapes. Precision is kept where the run's type differs from the saver's: an fp32 weight is read
// from its master if there is one, and a master that was not saved is read from the weight.
// Collective over `world` (null: a single rank): each rank reads what its own slices need, from a
// checkpoint of any layout, and an error of one is thrown by all.
Json load_checkpoint(const std::filesystem::path& folder, const std::vector<NamedSlice>& weights,
                     const std::vector<NamedSlice>& states, Communicator* world = nullptr);

}  // namespace moetron
