// What GPUs and links reach, for costs of a real model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/config/choices.h"

namespace moetron {

// FLOP/s of causal attention whose query and key heads are this wide.
struct AttentionRate {
  int64_t head_dim = 0;
  double forward = 0;
  double backward = 0;

  bool operator==(const AttentionRate&) const = default;
};

struct Hardware {
  std::string name;
  // What kernels reach alone, on random data.
  double matrix_rate = 0;                // FLOP/s of a large matrix product in bf16
  double grouped_rate = 0;               // FLOP/s of the grouped product of all local experts
  double memory_rate = 0;                // bytes/s, read and written
  std::vector<AttentionRate> attention;  // by head_dim
  double memory = 0;                     // bytes of a GPU
  double multiprocessors = 0;

  // Links, bytes/s of one GPU in one direction as reached, and the time before the first byte.
  int64_t gpus_per_node = 1;
  double node_rate = 0;
  double network_rate = 0;
  double message_latency = 0;  // seconds

  // The host, for optimizer states that lie there.
  double host_memory = 0;  // bytes of a node
  double adam_rate = 0;    // parameters/s that one GPU's share of the cores updates

  // The program that trains there, and how it differs from kernels alone: all compute takes so many
  // times as long, each pass of a layer's part this much longer (seconds of launches that nothing
  // hides; may be 0), every dispatch and combine this much (seconds: counts, launches, ranks that
  // come late; may be 0), and every all-gather or reduce-scatter of tensor parallelism this much
  // (seconds; may be 0, or absent from a file, which is 0).
  std::string system;
  double compute_slowdown = 1;
  double launch_overhead = 0;
  double dispatch_overhead = 0;
  double tensor_overhead = 0;
  double dispatch_multiprocessors = 0;  // taken from compute while one of them runs
  // In place of dispatch_overhead, of the dispatchers that a file names. Those of
  // kPlainDispatchers; an overlap kind is the plain one with other compute beside it.
  std::map<TokenDispatcher, double> dispatch_overheads;

  bool operator==(const Hardware&) const = default;
};

// Those that a file may name, by dispatcher_name().
inline constexpr TokenDispatcher kPlainDispatchers[] = {
    TokenDispatcher::kAllGather, TokenDispatcher::kAllGatherFused, TokenDispatcher::kAllToAll,
    TokenDispatcher::kDeepep};

// As kDispatchers calls it.
const char* dispatcher_name(TokenDispatcher dispatcher);

// Reads a file like configs/hardware/h100-ib400.toml. Throws InputError naming the file and a key
// that is missing, unknown or not a number above 0 (of at least 0 where that is said above).
Hardware read_hardware(const std::filesystem::path& path);
// Of that file; without one the built-in one.
Hardware hardware_of(const std::filesystem::path& path);

// How each number of a hardware file was found: by "table.key" ("gpu.matrix_rate"), an attention's
// by attention_note(), a dispatcher's by dispatch_note(); of the file itself by "".
using HardwareNotes = std::map<std::string, std::string>;
std::string attention_note(int64_t head_dim, const std::string& key);
std::string dispatch_note(TokenDispatcher dispatcher);

// The text of a file that read_hardware() reads back as it is, every number behind its note.
// What a file may leave out is left out where it is 0 and has no note. Throws InternalError where
// another number has none. `moetron plan --calibrate` writes it.
std::string hardware_text(const Hardware& hardware, const HardwareNotes& notes);
// Whether it wrote a text.
bool is_measured_hardware(std::string_view text);

// What the program carries with it: configs/hardware/h100-ib400.toml as it was built with.
Hardware built_in_hardware();

// The rate of the widest head that is no wider than `head_dim`, or of the narrowest.
const AttentionRate& attention_rate(const Hardware& hardware, int64_t head_dim);

}  // namespace moetron
