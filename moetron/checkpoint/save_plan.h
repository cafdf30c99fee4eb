// The first of a save's three parts (checkpoint.h): what goes where, and who writes it. A plan
// depends on the names, types, shapes and boxes of what the ranks hold alone, so one serves every
// save of a run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/file_block.h"
#include "moetron/checkpoint/tensor_file.h"

namespace moetron {

struct SaveSettings {
  uint64_t shard_bytes = 5'000'000'000;  // weights beyond this are split into several files
};

class SavePlan {
 public:
  // `files`: the same on every rank; `layout`: a digest of what this rank holds.
  SavePlan(std::vector<TensorFile> files, std::string layout, int rank, int num_ranks);
  SavePlan(SavePlan&&) = default;
  SavePlan& operator=(SavePlan&&) = default;

  int rank() const { return rank_; }
  int num_ranks() const { return num_ranks_; }
  const std::vector<TensorFile>& files() const { return files_; }
  uint64_t num_blocks() const { return blocks_.count(); }
  FileBlock block(uint64_t index) const { return blocks_.block(index, writers_.at(index)); }
  // Those that a rank writes, in rising order.
  const std::vector<uint64_t>& blocks_of(int writer) const {
    return blocks_of_.at(static_cast<size_t>(writer));
  }
  // What this rank gives to all blocks, one after the other: where its part of block `index` lies.
  ByteRange given(uint64_t index) const { return {given_.at(index), given_.at(index + 1)}; }
  uint64_t bytes_given() const { return given_.back(); }
  // Of all files, and what of it goes from a rank that holds it to another that writes it.
  uint64_t bytes() const { return bytes_; }
  uint64_t bytes_crossing() const { return bytes_crossing_; }

  // Digest of the names, types, shapes and boxes that this rank's part was planned for.
  const std::string& layout() const { return layout_; }

 private:
  std::vector<TensorFile> files_;
  BlockList blocks_;
  std::vector<int> writers_;  // by block
  std::vector<std::vector<uint64_t>> blocks_of_;
  std::vector<uint64_t> given_;
  uint64_t bytes_ = 0;
  uint64_t bytes_crossing_ = 0;
  std::string layout_;
  int rank_;
  int num_ranks_;
};

// The digest of what this rank brings, to be compared with SavePlan::layout(). InternalError for a
// slice that no checkpoint can hold.
std::string layout_of(const CheckpointContent& content);

// Plans the save of what all ranks bring; of `content` only the weights and states are looked at,
// and not their values. Collective over `world` (null: a single rank). InternalError, on every
// rank, where slices overlap or do not add up to whole tensors.
SavePlan plan_save(const CheckpointContent& content, Communicator* world,
                   const SaveSettings& settings = {});

// Whether every rank holds what the plan was made for: the same answer on all. Collective over
// `world`; costs a digest of the names and one number a rank.
bool plan_fits(const SavePlan& plan, const CheckpointContent& content, Communicator* world);

}  // namespace moetron
