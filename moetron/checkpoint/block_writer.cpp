#include "moetron/checkpoint/block_writer.h"

#include <cerrno>
#include <cstring>
#include <deque>
#include <exception>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/file_block.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// An open file to write to, closed in any case.
class RawFile {
 public:
  // `rank` is named in errors, for each may have a disk of its own; -1: the only one.
  RawFile(const fs::path& path, int flags, int rank)
      : path_(path), rank_(rank), fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0644)) {
    check(fd_ >= 0);
  }
  ~RawFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;

  void resize(uint64_t bytes) { check(::ftruncate(fd_, static_cast<off_t>(bytes)) == 0); }
  void write(std::span<const std::byte> bytes, uint64_t place) {
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(place));
      if (written < 0 && errno == EINTR) continue;
      check(written >= 0);
      bytes = bytes.subspan(static_cast<size_t>(written));
      place += static_cast<uint64_t>(written);
    }
  }
  void sync() { check(::fsync(fd_) == 0); }

 private:
  void check(bool done) const {
    const int error = errno;
    MT_CHECK_CONFIG(done, "cannot write ", path_.string(), ": ", std::strerror(error),
                    rank_ < 0 ? "" : concat(" (rank ", rank_, ")"));
  }

  fs::path path_;
  int rank_;
  int fd_;
};

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

at::Tensor buffer_of(uint64_t bytes) {
  return at::empty({static_cast<int64_t>(bytes)}, at::kByte);
}

// In a round, each rank writes one block: number (round * ranks + rank) of all files. The parts of
// the next round travel while a round's block is hashed and written.
class BlockWriter {
 public:
  BlockWriter(fs::path folder, std::span<const TensorFile> files, Communicator* world)
      : folder_(std::move(folder)), blocks_(files), world_(world) {
    if (world != nullptr) rank_ = world->rank(), num_ranks_ = world->size();
  }

  // Writes this rank's blocks and returns their hashes, one after the other.
  std::string write() {
    const auto size = static_cast<uint64_t>(num_ranks_);
    const uint64_t num_rounds = (blocks_.count() + size - 1) / size;
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
    if (num_ranks_ > 1) world_->group_begin();
    Round round;
    const uint64_t first = number * static_cast<uint64_t>(num_ranks_);
    const auto block_of = [&](int rank) { return first + static_cast<uint64_t>(rank); };
    if (block_of(rank_) < blocks_.count()) {
      round.block = blocks_.block(block_of(rank_));
      if (num_ranks_ > 1) receive_parts(round);
    }
    for (int distance = 1; distance < num_ranks_; ++distance) {
      const int peer = (rank_ + distance) % num_ranks_;
      if (block_of(peer) < blocks_.count()) send_part(blocks_.block(block_of(peer)), peer);
    }
    if (num_ranks_ > 1) world_->group_end();
    return round;
  }

  void receive_parts(Round& round) {
    const std::vector<uint64_t> bytes = bytes_by_rank(*round.block, num_ranks_);
    for (int rank = 0; rank < num_ranks_; ++rank) {
      if (rank == rank_ || bytes[static_cast<size_t>(rank)] == 0) continue;
      const at::Tensor packed = buffer_of(bytes[static_cast<size_t>(rank)]);
      round.parts.push_back({rank, packed, world_->recv(packed, rank)});
    }
  }

  void send_part(const FileBlock& block, int writer) {
    const uint64_t bytes = bytes_of_rank(block, rank_);
    if (bytes == 0) return;
    const at::Tensor packed = buffer_of(bytes);
    attempt([&] { pack_slices(block, rank_, bytes_of(packed)); });
    sends_.push_back(world_->send(packed, writer));
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
      if (buffer_.size() < block.bytes()) buffer_.resize(block.bytes());
      const std::span<std::byte> bytes = std::span(buffer_).first(block.bytes());
      place_header(block, bytes);
      place_slices(block, rank_, bytes);
      for (const Part& part : round.parts) {
        place_packed(block, part.rank, bytes_of(part.packed), bytes);
      }
      hashes_ += hash_hex(bytes);
      if (block.file != open_) open_file(block.file);
      file_->write(bytes, block.range.begin);
    });
  }

  // Blocks come file by file: the one before is complete, as far as this rank is concerned.
  void open_file(const TensorFile* file) {
    if (file_) file_->sync();
    file_.reset();
    if (file != nullptr) {
      file_ = std::make_unique<RawFile>(folder_ / file->name, 0, num_ranks_ > 1 ? rank_ : -1);
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
    on_all_ranks(world_, [&] {
      if (failure_) std::rethrow_exception(failure_);
      return 0;
    });
  }

  fs::path folder_;
  BlockList blocks_;
  Communicator* world_;
  int rank_ = 0;
  int num_ranks_ = 1;
  std::deque<Work> sends_;  // under way, oldest first
  std::vector<std::byte> buffer_;
  const TensorFile* open_ = nullptr;
  std::unique_ptr<RawFile> file_;
  std::string hashes_;
  std::exception_ptr failure_;
};

}  // namespace

void create_tensor_files(const fs::path& folder, std::span<const TensorFile> files) {
  for (const TensorFile& file : files) {
    RawFile(folder / file.name, O_CREAT | O_TRUNC, -1).resize(file.layout.file_bytes);
  }
}

std::vector<ManifestFile> write_tensor_files(const fs::path& folder,
                                             std::span<const TensorFile> files,
                                             Communicator* world) {
  const std::string mine = BlockWriter(folder, files, world).write();
  std::vector<std::string> hashes{mine};
  if (world != nullptr && world->size() > 1) hashes = gather_texts(*world, mine);
  if (world != nullptr && world->rank() != 0) return {};
  const size_t hash_size = hash_hex({}).size();
  const BlockList blocks(files);
  std::vector<ManifestFile> entries;
  for (const TensorFile& file : files) entries.push_back({file.name, file.layout.file_bytes, {}});
  for (uint64_t i = 0; i < blocks.count(); ++i) {
    const std::string& from = hashes[i % hashes.size()];
    const auto place = static_cast<size_t>(blocks.block(i).file - files.data());
    entries[place].blocks.push_back(from.substr(i / hashes.size() * hash_size, hash_size));
  }
  return entries;
}

}  // namespace moetron
