// What options may choose between. Whoever runs a choice may know these; the options themselves are
// resolved once, by run/, and below it nothing reads them (scripts/check_layers.py).
#pragma once

namespace moetron {

// What fine-tuning makes of an answer: to be written, or to be preferred to another (DPO).
enum class Objective { kSft, kDpo };
// Of a chat template's variable enable_thinking.
enum class ThinkingChoice { kTemplate, kOn, kOff };
enum class ModelFamily { kDeepseek, kQwen, kLlama };
enum class RouterScoreFunction { kSoftmax, kSigmoid };
enum class LoadBalancing { kAuxLoss, kSeqAuxLoss, kNone };
// How often a token travels to its experts: once for each, for each rank or node that holds some of
// them, or to every rank.
enum class DispatchScheme { kPerExpert, kPerRank, kPerNode, kAllGather };
// How tokens reach their experts, what --moe-token-dispatcher-type calls it, and how often they
// travel. kDeepep is the deduplicating all-to-all. The overlap kinds are the same algorithms:
// ExpertsSpec of run/run_spec.h says what is true of each.
enum class TokenDispatcher {
  kAllGather,
  kAllGatherFused,
  kAllToAll,
  kDeepep,
  kOverlapAllGatherFused,
  kOverlapAllToAll,
  kOverlapDeepep
};
struct NamedDispatcher {
  const char* name;
  TokenDispatcher kind;
  DispatchScheme scheme;
};
inline constexpr NamedDispatcher kDispatchers[] = {
    {"allgather", TokenDispatcher::kAllGather, DispatchScheme::kAllGather},
    {"allgather_fused", TokenDispatcher::kAllGatherFused, DispatchScheme::kAllGather},
    {"alltoall", TokenDispatcher::kAllToAll, DispatchScheme::kPerExpert},
    {"deepep", TokenDispatcher::kDeepep, DispatchScheme::kPerRank},
    {"overlap_allgather_fused", TokenDispatcher::kOverlapAllGatherFused,
     DispatchScheme::kAllGather},
    {"overlap_alltoall", TokenDispatcher::kOverlapAllToAll, DispatchScheme::kPerExpert},
    {"overlap_deepep", TokenDispatcher::kOverlapDeepep, DispatchScheme::kPerRank}};
// Which operators compute a layer: the fastest, or plain ones.
enum class TransformerImpl { kTransformerEngine, kLocal };
enum class TokenDropPolicy { kProbs, kPosition };
// The order of a pipeline's work (schedule/schedule.h), and what --scheduler calls it.
enum class ScheduleKind { k1F1B, kInterleaved, kZbH1, kZbV, kDualPipeV, kDualPipeVPlus, kGPipe };
struct NamedSchedule {
  const char* name;
  ScheduleKind kind;
  bool has_blocks = false;  // a forward of one micro-batch beside the backward of another
};
inline constexpr NamedSchedule kSchedules[] = {
    {"1f1b", ScheduleKind::k1F1B},
    {"interleaved", ScheduleKind::kInterleaved},
    {"zb-h1", ScheduleKind::kZbH1},
    {"zb-v", ScheduleKind::kZbV},
    {"dualpipev", ScheduleKind::kDualPipeV, true},
    {"dualpipev+", ScheduleKind::kDualPipeVPlus, true},
    {"gpipe", ScheduleKind::kGPipe},
};
enum class RecomputeGranularity { kFull };
enum class RecomputeMethod { kUniform };
// kAuto: bf16 on a GPU, fp32 on a CPU; kFp8: the same, with products in 8 bits.
enum class Dtype { kAuto, kBf16, kFp32, kFp8 };
enum class Fp8Format { kE4m3, kHybrid };
enum class Fp8Recipe { kBlockwise };
enum class Fp8WeightGrad { kFp8, kBf16 };
enum class OptimizerKind { kAdam, kHybridAdam };
enum class LrDecayStyle { kConstant, kLinear, kCosine };
enum class TokenizerKind { kHf, kBytes };
enum class PatchTokenizer { kDeepseek, kQwen3 };
enum class DistributedBackend { kAuto, kGloo, kNccl };  // kAuto: NCCL on GPUs, Gloo on CPUs
enum class DeviceKind { kAuto, kCpu, kCuda };  // kAuto: a GPU where the build and machine have one
enum class PictureFormat { kSvg, kPng };

// What a simulated step costs: units of schedule/costs.h, or seconds of a model on hardware.
enum class SimulatedCosts { kUnit, kModel };

}  // namespace moetron
