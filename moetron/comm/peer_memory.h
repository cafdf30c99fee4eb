// Memory on the GPUs of one machine that all ranks of a group write into, by CUDA's peer access:
// over NVLink, or whatever joins the GPUs. Of builds with CUDA only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <c10/core/Device.h>
#include <c10/cuda/CUDAStream.h>

namespace moetron {

// What every rank of a group said under `name`, by rank; a collective. Throws where one does not
// come.
using ExchangeTexts =
    std::function<std::vector<std::string>(const std::string& name, const std::string& mine)>;

// A piece of equal size on each rank's GPU, zero at first, whose first words are signals.
class PeerMemory {
 public:
  // Null on every rank where any of them cannot write to another's memory: on other machines,
  // without peer access, with NCCL_P2P_DISABLE=1, or for want of memory.
  static std::unique_ptr<PeerMemory> connect(const ExchangeTexts& exchange, int rank,
                                             c10::Device device, int64_t bytes);
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  // The piece on the GPU of `rank`, as this process sees it.
  std::byte* of(int rank) const { return pieces_[static_cast<size_t>(rank)].address; }

  // Keeps the memory until the process ends: peers may still write into it.
  void leave_open() { stays_ = true; }

 private:
  struct Piece {
    std::byte* address = nullptr;
    bool is_opened = false;  // of another process: to be closed
  };

  PeerMemory(int rank, c10::Device device) : rank_(rank), device_(device) {}
  bool open(const std::vector<std::string>& messages);

  int rank_;
  c10::Device device_;
  std::vector<Piece> pieces_;
  bool stays_ = false;
};

// On `stream`, behind what is queued there: stores a word, which everybody who reads it afterwards
// finds written later than all before it on the stream.
void write_signal(const c10::cuda::CUDAStream& stream, std::byte* word, uint32_t value);
// Holds `stream` until the word, of this GPU, has come to `value`; counting goes around.
void await_signal(const c10::cuda::CUDAStream& stream, std::byte* word, uint32_t value);

}  // namespace moetron
