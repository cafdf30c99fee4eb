#include "moetron/checkpoint/block_writer.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/base/placed_writer.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/file_block.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

at::Tensor buffer_of(uint64_t bytes) {
  return at::empty({static_cast<int64_t>(bytes)}, at::kByte);
}

// In a round, each rank writes one block, the next of those that the plan gives it. The parts of
// the next round travel while a round's block is hashed and written.
class BlockWriter {
 public:
  BlockWriter(fs::path folder, const SavePlan& plan, const SaveSnapshot& snapshot,
              Communicator* exchange)
      : folder_(std::move(folder)),
        plan_(plan),
        snapshot_(snapshot),
        exchange_(exchange),
        rank_(plan.rank()),
        num_ranks_(plan.num_ranks()) {}

  // Writes this rank's blocks and returns their hashes, one after the other.
  std::string write() {
    uint64_t num_rounds = 0;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      num_rounds = std::max<uint64_t>(num_rounds, plan_.blocks_of(rank).size());
    }
    if (num_rounds == 0) return {};
    Round next = start(0);
    for (uint64_t round = 0; round < num_rounds; ++round) {
      Round current = std::move(next);
      if (round + 1 < num_rounds) next = start(round + 1);
      finish(current);
      // A failed rank goes on to serve the others until all have agreed to stop.
      if (num_ranks_ == 1 || round % kRoundsBetweenChecks == kRoundsBetweenChecks - 1) agree();
    }
    while (!sends_.empty()) wait_for_oldest_send();
    attempt([&] { open_file(nullptr); });
    agree();
    return std::move(hashes_);
  }

 private:
  static constexpr uint64_t kRoundsBetweenChecks = 16;
  static constexpr size_t kMaxSends = 4;  // not waited for when a round starts

  struct Part {
    int rank;
    at::Tensor packed;
    Work received;
  };
  struct Round {
    std::optional<FileBlock> block;  // that this rank writes
    std::vector<Part> parts;         // of it, from other ranks
  };

  // What ranks send and receive in a round is one group: on NCCL, where the operations of a pair
  // run in order, two ranks that both receive first would wait for each other for good.
  Round start(uint64_t number) {
    while (sends_.size() > kMaxSends) wait_for_oldest_send();
    if (num_ranks_ > 1) exchange_->group_begin();
    Round round;
    round.block = block_of(rank_, number);
    if (round.block && num_ranks_ > 1) receive_parts(round);
    for (int distance = 1; distance < num_ranks_; ++distance) {
      const int peer = (rank_ + distance) % num_ranks_;
      if (const auto block = block_of(peer, number)) send_part(*block);
    }
    if (num_ranks_ > 1) exchange_->group_end();
    return round;
  }

  // That a rank writes in a round; none where it has fewer.
  std::optional<FileBlock> block_of(int writer, uint64_t round) const {
    const std::vector<uint64_t>& blocks = plan_.blocks_of(writer);
    if (round >= blocks.size()) return std::nullopt;
    return plan_.block(blocks[round]);
  }

  void receive_parts(Round& round) {
    const std::vector<uint64_t> bytes = bytes_given(*round.block, num_ranks_);
    for (int rank = 0; rank < num_ranks_; ++rank) {
      if (rank == rank_ || bytes[static_cast<size_t>(rank)] == 0) continue;
      const at::Tensor packed = buffer_of(bytes[static_cast<size_t>(rank)]);
      round.parts.push_back({rank, packed, exchange_->recv(packed, rank)});
    }
  }

  void send_part(const FileBlock& block) {
    const ByteRange given = plan_.given(block.index);
    if (given.begin == given.end) return;
    at::Tensor packed;
    attempt([&] { packed = snapshot_.packed(plan_, block); });
    // The writer waits for it, whatever has failed here.
    if (!packed.defined()) packed = buffer_of(given.end - given.begin);
    sends_.push_back(exchange_->send(packed, block.writer));
  }

  void wait_for_oldest_send() {
    sends_.front().wait();
    sends_.pop_front();
  }

  void finish(Round& round) {
    if (!round.block) return;
    for (Part& part : round.parts) part.received.wait();
    attempt([&] {
      const FileBlock& block = *round.block;
      const std::span<std::byte> bytes = buffer_.room(block.bytes());
      const std::span<const std::byte> whole = snapshot_.whole(block);
      if (whole.empty()) {
        gather(block, round.parts, bytes);
      } else {
        std::copy(whole.begin(), whole.end(), bytes.begin());
      }
      hashes_ += hash_hex(bytes);
      if (block.file != open_) open_file(block.file);
      file_->write(bytes, block.range.begin);
    });
  }

  void gather(const FileBlock& block, const std::vector<Part>& parts, std::span<std::byte> bytes) {
    place_header(block, bytes);
    snapshot_.place(plan_, block, bytes);
    for (const Part& part : parts) {
      place_packed(block, part.rank, bytes_of(part.packed), bytes);
    }
  }

  // Blocks come file by file: the one before is complete, as far as this rank is concerned.
  void open_file(const TensorFile* file) {
    if (file_) file_->sync();
    file_.reset();
    if (file != nullptr) {
      // Each rank may have a disk of its own.
      file_ = std::make_unique<PlacedWriter>(folder_ / file->name, std::nullopt,
                                             num_ranks_ > 1 ? concat(" (rank ", rank_, ")") : "");
    }
    open_ = file;
  }

  template <class Work>
  void attempt(const Work& work) {
    if (failure_) return;
    try {
      work();
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  void agree() {
    on_all_ranks(exchange_, [&] {
      if (failure_) std::rethrow_exception(failure_);
      return 0;
    });
  }

  fs::path folder_;
  const SavePlan& plan_;
  const SaveSnapshot& snapshot_;
  Communicator* exchange_;
  int rank_;
  int num_ranks_;
  std::deque<Work> sends_;  // under way, oldest first
  WriteBuffer buffer_;      // of a block
  const TensorFile* open_ = nullptr;
  std::unique_ptr<PlacedWriter> file_;
  std::string hashes_;
  std::exception_ptr failure_;
};

}  // namespace

void create_tensor_files(const fs::path& folder, std::span<const TensorFile> files) {
  for (const TensorFile& file : files) {
    PlacedWriter(folder / file.name, file.layout.file_bytes);
  }
}

std::vector<ManifestFile> write_tensor_files(const fs::path& folder, const SavePlan& plan,
                                             const SaveSnapshot& snapshot, Communicator* exchange) {
  const std::string mine = BlockWriter(folder, plan, snapshot, exchange).write();
  std::vector<std::string> hashes{mine};  // by writer, in the order of its blocks
  if (plan.num_ranks() > 1) hashes = gather_texts(*exchange, mine);
  if (plan.rank() != 0) return {};
  const size_t hash_size = hash_hex({}).size();
  const std::vector<TensorFile>& files = plan.files();
  std::vector<ManifestFile> entries;
  for (const TensorFile& file : files) entries.push_back({file.name, file.layout.file_bytes, {}});
  std::vector<size_t> taken(hashes.size());
  for (uint64_t index = 0; index < plan.num_blocks(); ++index) {
    const FileBlock block = plan.block(index);
    const auto writer = static_cast<size_t>(block.writer);
    entries[static_cast<size_t>(block.file - files.data())].blocks.push_back(
        hashes[writer].substr(taken[writer], hash_size));
    taken[writer] += hash_size;
  }
  return entries;
}

}  // namespace moetron
