#include "moetron/comm/peer_memory.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <fstream>
#include <random>

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// What a rank says of its piece.
struct PieceMessage {
  char machine[64] = {};     // changes with every start of the machine
  uint64_t process[2] = {};  // a number of ranks that are threads of one process
  int device = 0;
  void* address = nullptr;  // null where there is no memory
  cudaIpcMemHandle_t handle = {};

  std::string text() const { return {reinterpret_cast<const char*>(this), sizeof *this}; }
};

const uint64_t* process_number() {
  static const auto number = [] {
    std::random_device random;
    std::array<uint64_t, 2> drawn{};
    for (uint64_t& part : drawn) part = uint64_t{random()} << 32 | random();
    return drawn;
  }();
  return number.data();
}

PieceMessage message_of(std::byte* address, c10::Device device) {
  PieceMessage message;
  std::ifstream("/proc/sys/kernel/random/boot_id").get(message.machine, sizeof message.machine);
  std::copy_n(process_number(), 2, message.process);
  message.device = device.index();
  const char* disabled = std::getenv("NCCL_P2P_DISABLE");
  const bool is_wanted = disabled == nullptr || std::string(disabled) != "1";
  if (is_wanted && address != nullptr &&
      cudaIpcGetMemHandle(&message.handle, address) == cudaSuccess) {
    message.address = address;
  }
  (void)cudaGetLastError();
  return message;
}

// Another GPU of this process.
bool can_reach(int own, int other) {
  if (own == other) return true;
  int can = 0;
  if (cudaDeviceCanAccessPeer(&can, own, other) != cudaSuccess || can == 0) return false;
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(other, 0);
  (void)cudaGetLastError();
  return enabled == cudaSuccess || enabled == cudaErrorPeerAccessAlreadyEnabled;
}

// A function of the driver, which the program is not linked with.
template <typename Function>
Function driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  C10_CUDA_CHECK(
      cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found));
  MT_CHECK(found == cudaDriverEntryPointSuccess, "the driver has no ", name);
  return reinterpret_cast<Function>(function);
}

void check_driver(CUresult result, const char* what) {
  MT_CHECK(result == CUDA_SUCCESS, what, " failed with error ", static_cast<int>(result),
           " of the driver");
}

CUdeviceptr pointer_of(std::byte* word) {
  return reinterpret_cast<CUdeviceptr>(word);
}

}  // namespace

std::unique_ptr<PeerMemory> PeerMemory::connect(const ExchangeTexts& exchange, int rank,
                                                c10::Device device, int64_t bytes) {
  const c10::cuda::CUDAGuard guard(device);
  std::unique_ptr<PeerMemory> memory(new PeerMemory(rank, device));
  void* own = nullptr;
  if (cudaMalloc(&own, static_cast<size_t>(bytes)) != cudaSuccess) own = nullptr;
  (void)cudaGetLastError();
  if (own != nullptr) {
    C10_CUDA_CHECK(cudaMemset(own, 0, static_cast<size_t>(bytes)));
    C10_CUDA_CHECK(cudaDeviceSynchronize());
  }
  auto* address = static_cast<std::byte*>(own);
  const std::vector<std::string> messages =
      exchange("peer memory", message_of(address, device).text());
  memory->pieces_.resize(messages.size());
  memory->pieces_[static_cast<size_t>(rank)].address = address;
  const bool opened = memory->open(messages);
  const std::vector<std::string> all = exchange("peer memory opened", opened ? "yes" : "no");
  if (std::ranges::count(all, "no") > 0) return nullptr;
  return memory;
}

bool PeerMemory::open(const std::vector<std::string>& messages) {
  std::vector<PieceMessage> said(messages.size());
  for (size_t r = 0; r < messages.size(); ++r) {
    if (messages[r].size() != sizeof said[r]) return false;
    std::memcpy(&said[r], messages[r].data(), sizeof said[r]);
  }
  const PieceMessage& mine = said[static_cast<size_t>(rank_)];
  for (size_t r = 0; r < said.size(); ++r) {
    if (said[r].address == nullptr || std::strcmp(said[r].machine, mine.machine) != 0) return false;
    if (r == static_cast<size_t>(rank_)) continue;
    if (std::ranges::equal(said[r].process, mine.process)) {
      if (!can_reach(device_.index(), said[r].device)) return false;
      pieces_[r].address = static_cast<std::byte*>(said[r].address);
      continue;
    }
    void* address = nullptr;
    const bool opened = cudaIpcOpenMemHandle(&address, said[r].handle,
                                             cudaIpcMemLazyEnablePeerAccess) == cudaSuccess;
    (void)cudaGetLastError();
    if (!opened) return false;
    pieces_[r] = {static_cast<std::byte*>(address), /*is_opened=*/true};
  }
  return true;
}

PeerMemory::~PeerMemory() {
  if (stays_) return;
  const c10::cuda::OptionalCUDAGuard guard(device_);
  for (const Piece& piece : pieces_) {
    if (piece.is_opened) (void)cudaIpcCloseMemHandle(piece.address);
  }
  (void)cudaFree(pieces_[static_cast<size_t>(rank_)].address);
  (void)cudaGetLastError();
}

void write_signal(const c10::cuda::CUDAStream& stream, std::byte* word, uint32_t value) {
  static const auto write =
      driver_function<decltype(&cuStreamWriteValue32)>("cuStreamWriteValue32");
  check_driver(write(stream.stream(), pointer_of(word), value, CU_STREAM_WRITE_VALUE_DEFAULT),
               "cuStreamWriteValue32");
}

void await_signal(const c10::cuda::CUDAStream& stream, std::byte* word, uint32_t value) {
  static const auto wait = driver_function<decltype(&cuStreamWaitValue32)>("cuStreamWaitValue32");
  check_driver(wait(stream.stream(), pointer_of(word), value, CU_STREAM_WAIT_VALUE_GEQ),
               "cuStreamWaitValue32");
}

}  // namespace moetron
