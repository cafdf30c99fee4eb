// Megatron's options that need no field here: what they ask for is so in any case, or means nothing
// to a program without Python; or it is refused, since it would train another way.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

struct Declared {
  const char* name;
  ValueKind kind;
  const char* meaning;
};
using List = std::initializer_list<Declared>;
constexpr ValueKind kFlag = ValueKind::kFlag;
constexpr ValueKind kInteger = ValueKind::kInteger;
constexpr ValueKind kNumber = ValueKind::kNumber;
constexpr ValueKind kText = ValueKind::kText;
constexpr ValueKind kTexts = ValueKind::kTexts;

void declare_idle(OptionTable& table, const std::string& reason, List list) {
  for (const auto& [name, kind, meaning] : list)
    table.add_fieldless(name, kind, meaning).no_effect(reason);
}

void declare_later(OptionTable& table, const std::string& capability, List list) {
  for (const auto& [name, kind, meaning] : list)
    table.add_fieldless(name, kind, meaning).not_yet(capability);
}

void declare_numerics(OptionTable& table) {
  declare_idle(table, "gradients are always added up and reduced in fp32",
               {{"accumulate-allreduce-grads-in-fp32", kFlag, "Reduces gradients in fp32."},
                {"grad-reduce-in-bf16", kFlag, "Reduces gradients in bf16."},
                {"ddp-average-in-collective", kFlag, "Divides gradients while they are reduced."}});
  declare_idle(table, "the softmax of attention is always in fp32",
               {{"attention-softmax-in-fp32", kFlag, "Computes the softmax of attention in fp32."},
                {"apply-query-key-layer-scaling", kFlag, "Scales queries by the layer's number."}});
  declare_idle(
      table, "the loss is always the mean over all labelled tokens of a global batch",
      {{"calculate-per-token-loss", kFlag, "Divides the loss by the tokens of all ranks."}});
  declare_idle(table, "a loss or gradient that is not finite always ends the run before an update",
               {{"no-check-for-nan-in-loss-and-grad", kFlag, "Trains on through NaNs."},
                {"check-for-spiky-loss", kFlag, "Looks for jumps of the loss."},
                {"check-for-large-grads", kFlag, "Looks for unusual gradients."},
                {"rerun-mode", kText, "Runs suspicious steps again."}});
  declare_idle(table, "bf16 and fp32 need no scaling of the loss",
               {{"loss-scale", kNumber, "A fixed scale of the loss."},
                {"initial-loss-scale", kNumber, "The first scale of the loss."},
                {"min-loss-scale", kNumber, "The least scale of the loss."},
                {"loss-scale-window", kNumber, "Steps before the scale grows."},
                {"hysteresis", kInteger, "Overflows before the scale shrinks."}});
  declare_idle(table,
               "a scale follows from the numbers that it is of, and weights are kept in bf16",
               {{"fp8-amax-history-len", kInteger, "Steps whose largest numbers count."},
                {"fp8-amax-compute-algo", kText, "How the largest number is chosen."},
                {"fp8-margin", kInteger, "Room left by the scale."},
                {"fp8-interval", kInteger, "Steps between new scales."},
                {"fp8-param-gather", kFlag, "Gathers parameters in 8 bits."},
                {"moe-router-padding-for-fp8", kFlag, "Pads experts' rows."},
                {"moe-router-padding-for-quantization", kFlag, "Pads experts' rows."}});
  declare_later(table, "fp16 with loss scaling",
                {{"fp16-lm-cross-entropy", kFlag, "The loss in fp16."}});
  declare_later(table, "a residual that is taken behind the norm",
                {{"apply-residual-connection-post-layernorm", kFlag, "Adds up what is normed."}});
  declare_later(table, "attention within a window",
                {{"window-size", kTexts, "How far back and ahead attention sees."}});
  declare_later(table, "a rotation of neighbouring numbers, not of halves",
                {{"rotary-interleaved", kFlag, "Rotates neighbouring numbers."}});
  declare_later(table, "the norm's weight less one",
                {{"apply-layernorm-1p", kFlag, "Stores the norm's weight less one."}});
  declare_later(table, "MLPs without a SiLU gate",
                {{"squared-relu", kFlag, "Squared ReLU in the MLPs."},
                 {"openai-gelu", kFlag, "GELU in the MLPs."},
                 {"quick-geglu", kFlag, "A gate of GELU in the MLPs."}});
  declare_later(table, "Llama 3's scaling from options: a config.json in --load may have it",
                {{"use-rope-scaling", kFlag, "Scales the rotation as Llama 3.1."},
                 {"rope-scaling-factor", kNumber, "How far Llama 3.1's scaling stretches."}});
  table.add_fieldless("rope-type", ValueKind::kChoice, "How the rotation is stretched.")
      .one_of({Choice("rope", Standing::kNoEffect, "rotary-scaling-factor says it"),
               Choice("yarn", Standing::kNoEffect, "rotary-scaling-factor says it")});
  declare_idle(table, "there are no learned positions",
               {{"no-position-embedding", kFlag, "Leaves learned positions out."}});
  declare_idle(table, "weights are drawn by name and seed, whatever device and rank they are on",
               {{"use-cpu-initialization", kFlag, "Draws weights on the CPU."},
                {"data-parallel-random-init", kFlag, "Another seed for each data-parallel rank."}});
  declare_later(table, "Xavier's initial weights",
                {{"init-method-xavier-uniform", kFlag, "Draws weights as Xavier."}});
}

void declare_experts(OptionTable& table) {
  const std::string one_way = "there is one way, the fastest, and it changes no result";
  declare_idle(table, one_way,
               {{"moe-permute-fusion", kFlag, "Fuses the permutation of tokens."},
                {"moe-router-fusion", kFlag, "Fuses the router's operations."},
                {"moe-use-legacy-grouped-gemm", kFlag, "The older grouped product."},
                {"moe-deepep-num-sms", kInteger, "Processors for DeepEP."},
                {"moe-hybridep-num-sms", kInteger, "Processors for HybridEP."},
                {"moe-flex-dispatcher-backend", kText, "The library that moves tokens."},
                {"moe-shared-expert-overlap", kFlag, "The shared expert beside communication."},
                {"moe-per-layer-logging", kFlag, "The balance of each layer."},
                {"mla-down-proj-fusion", kFlag, "One down projection."}});
  declare_idle(table, "mtp-num-layers is 0",
               {{"mtp-loss-scaling-factor", kNumber, "Weight of further tokens' losses."}});
  declare_later(table, "experts whose weights apply to their input",
                {{"moe-apply-probs-on-input", kFlag, "Weighs an expert's input."}});
  declare_later(table, "experts made of a dense model",
                {{"moe-use-upcycling", kFlag, "Makes experts of a dense model."}});
  declare_later(table, "experts of a latent width",
                {{"moe-latent-size", kInteger, "Width that experts see."}});
}

void declare_fusions(OptionTable& table) {
  declare_idle(table, "fusion does not change results and is chosen by the program",
               {{"no-masked-softmax-fusion", kFlag, "Leaves a fusion out."},
                {"no-gradient-accumulation-fusion", kFlag, "Leaves a fusion out."},
                {"no-bias-gelu-fusion", kFlag, "Leaves a fusion out."},
                {"no-bias-dropout-fusion", kFlag, "Leaves a fusion out."},
                {"no-persist-layer-norm", kFlag, "Leaves a fusion out."},
                {"apply-rope-fusion", kFlag, "Fuses the rotation."},
                {"cross-entropy-fusion-impl", kText, "Which fused loss."},
                {"use-transformer-engine-op-fuser", kFlag, "Fuses operations."}});
  table
      .add_fieldless("attention-backend", ValueKind::kChoice,
                     "Which attention computes; see transformer-impl.")
      .one_of([] {
        std::vector<Choice> choices;
        for (const char* name : {"auto", "flash", "fused", "unfused", "local"})
          choices.emplace_back(name, Standing::kNoEffect,
                               "the fastest attention of the machine is used, or with "
                               "transformer-impl local a plain one");
        return choices;
      }());
  declare_idle(table, "there is no Python whose collector or graphs would matter",
               {{"manual-gc", kFlag, "Collects garbage at steps of its choice."},
                {"manual-gc-interval", kInteger, "Steps between collections."},
                {"manual-gc-eval", kFlag, "Collects around evaluations."},
                {"no-manual-gc-eval", kFlag, "Does not collect around evaluations."},
                {"empty-unused-memory-level", kInteger, "Gives cached memory back."},
                {"cuda-graph-impl", kText, "How graphs are captured."},
                {"cuda-graph-scope", kTexts, "What graphs hold."},
                {"cuda-graph-modules", kTexts, "What graphs hold."},
                {"cuda-graph-warmup-steps", kInteger, "Steps before capturing."},
                {"enable-cuda-graph", kFlag, "Captures graphs."},
                {"external-cuda-graph", kFlag, "Captures graphs."},
                {"te-rng-tracker", kFlag, "Random numbers for graphs."},
                {"enable-experimental", kFlag, "Allows experimental features."}});
  declare_idle(table, "there is one set of model classes",
               {{"use-legacy-models", kFlag, "Uses the older model classes."}});
}

void declare_communication(OptionTable& table) {
  declare_idle(
      table, "how messages travel is the program's choice and changes no result",
      {{"tp-comm-overlap", kFlag, "Hides tensor-parallel communication."},
       {"tp-comm-overlap-cfg", kText, "How it is hidden."},
       {"tp-comm-bootstrap-backend", kText, "How its ranks meet."},
       {"disable-tp-comm-overlap-ag", kFlag, "Leaves a part out."},
       {"disable-tp-comm-overlap-rs", kFlag, "Leaves a part out."},
       {"align-grad-reduce", kFlag, "Reduces gradients at the same time."},
       {"no-align-grad-reduce", kFlag, "Reduces gradients when they are there."},
       {"no-align-param-gather", kFlag, "Gathers parameters when they are wanted."},
       {"overlap-param-gather-with-optimizer-step", kFlag, "Gathers while updating."},
       {"ddp-bucket-size", kInteger, "Elements that are reduced at once."},
       {"ddp-num-buckets", kInteger, "Parts that are reduced at once."},
       {"ddp-pad-buckets-for-high-nccl-busbw", kFlag, "Pads what is reduced at once."},
       {"microbatch-group-size-per-virtual-pipeline-stage", kInteger,
        "Micro-batches in a row on a virtual stage."},
       {"no-overlap-p2p-communication", kFlag, "Waits for messages between stages."},
       {"overlap-p2p-communication-warmup-flush", kFlag, "Hides messages at the ends of a step."},
       {"no-scatter-gather-tensors-in-pipeline", kFlag, "Sends whole tensors between stages."},
       {"defer-embedding-wgrad-compute", kFlag, "Delays the head's weight gradient."},
       {"wgrad-deferral-limit", kInteger, "How far it is delayed."},
       {"high-priority-stream-groups", kTexts, "Groups whose messages come first."},
       {"nccl-communicator-config-path", kText, "Settings of NCCL."},
       {"use-nccl-ub", kFlag, "Registers buffers with NCCL."},
       {"use-sharp", kFlag, "Reduces in the network."},
       {"lazy-mpu-init", kFlag, "Meets the other ranks later."},
       {"local-rank", kInteger, "The rank on this machine."}});
  declare_idle(table, "context-parallel-size is 1",
               {{"cp-comm-type", kTexts, "How parts of a sequence see each other."}});
  declare_later(table, "context parallelism",
                {{"hierarchical-context-parallel-sizes", kTexts, "Two levels of it."},
                 {"hybrid-context-parallel", kFlag, "Ranks for each sequence."}});
  declare_later(table, "optimizer states and weights divided among data-parallel ranks (FSDP)",
                {{"use-torch-fsdp2", kFlag, "PyTorch's FSDP."},
                 {"use-custom-fsdp", kFlag, "Megatron's FSDP."},
                 {"use-megatron-fsdp", kFlag, "Megatron's FSDP."},
                 {"data-parallel-sharding-strategy", kText, "What FSDP divides."},
                 {"num-distributed-optimizer-instances", kInteger, "Copies of divided states."}});
  declare_later(table, "another order of ranks",
                {{"use-tp-pp-dp-mapping", kFlag, "Data-parallel ranks last."}});
  declare_later(table, "pipelines of an encoder and a decoder",
                {{"pipeline-model-parallel-split-rank", kInteger, "Where the decoder begins."}});
}

void declare_optimizer_details(OptionTable& table) {
  for (const char* name :
       {"main-grads-dtype", "main-params-dtype", "exp-avg-dtype", "exp-avg-sq-dtype"}) {
    table.add_fieldless(name, ValueKind::kChoice, "Type of the optimizer's numbers; always fp32.")
        .one_of({Choice("fp32"),
                 {"bf16", Standing::kNotYet, "an optimizer in fewer bits"},
                 {"fp16", Standing::kNotYet, "an optimizer in fewer bits"},
                 {"fp8", Standing::kNotYet, "an optimizer in fewer bits"}});
  }
  declare_idle(table, "main-grads-dtype and its like say the types",
               {{"use-precision-aware-optimizer", kFlag, "Types of the optimizer's numbers."}});
  declare_idle(table, "hybridadam always works so, as far as optimizer-enable-pin allows",
               {{"overlap-cpu-optimizer-d2h-h2d", kFlag, "Copies beside the update."},
                {"use-torch-optimizer-for-cpu-offload", kFlag, "PyTorch's Adam on the host."},
                {"no-pin-cpu-grads", kFlag, "Pageable memory of gradients."},
                {"no-pin-cpu-params", kFlag, "Pageable memory of parameters."}});
  declare_later(table, "another learning rate for embedding and head",
                {{"decoupled-lr", kNumber, "Learning rate of embedding and head."},
                 {"decoupled-min-lr", kNumber, "Its lowest."}});
  declare_later(table, "weight decay that changes",
                {{"start-weight-decay", kNumber, "The first weight decay."},
                 {"end-weight-decay", kNumber, "The last weight decay."}});
  table.add_fieldless("weight-decay-incr-style", ValueKind::kChoice, "How weight decay grows.")
      .one_of({Choice("constant"),
               {"linear", Standing::kNotYet, "weight decay that changes"},
               {"cosine", Standing::kNotYet, "weight decay that changes"}});
  declare_idle(table, "adam has no use for it", {{"sgd-momentum", kNumber, "Momentum of sgd."}});
  declare_later(table, "warm-up, stable, decay",
                {{"lr-wsd-decay-style", kText, "Shape of the last decay."},
                 {"lr-wsd-decay-iters", kInteger, "Steps of the last decay."},
                 {"lr-wsd-decay-samples", kInteger, "Samples of the last decay."}});
  declare_later(table, "activations in host memory",
                {{"cpu-offloading", kFlag, "Keeps activations on the host."},
                 {"cpu-offloading-num-layers", kInteger, "Of so many layers."},
                 {"fine-grained-activation-offloading", kFlag, "Keeps some on the host."},
                 {"offload-modules", kTexts, "Of these modules."}});
}

void declare_checkpoints(OptionTable& table) {
  table
      .add_fieldless("ckpt-format", ValueKind::kChoice,
                     "How checkpoints are stored; always as Hugging Face directories.")
      .also("dist-ckpt-format")
      .one_of([] {
        std::vector<Choice> choices;
        for (const char* name : {"torch", "torch_dist", "torch_dcp", "zarr", "fsdp_dtensor"})
          choices.emplace_back(name, Standing::kNoEffect,
                               "a checkpoint is a Hugging Face directory, written by all ranks, "
                               "that any layout reads");
        return choices;
      }());
  declare_idle(table,
               "a checkpoint is a Hugging Face directory, written by all ranks, that any layout "
               "reads",
               {{"use-dist-ckpt", kFlag, "Checkpoints of all ranks."},
                {"auto-detect-ckpt-format", kFlag, "Tells the format by itself."},
                {"ckpt-fully-parallel-save", kFlag, "All ranks write."},
                {"no-ckpt-fully-parallel-save", kFlag, "Some ranks write."},
                {"ckpt-fully-parallel-load", kFlag, "All ranks read."},
                {"ckpt-assume-constant-structure", kFlag, "Plans a save once."},
                {"dist-ckpt-strictness", kText, "What missing tensors mean."},
                {"use-persistent-ckpt-worker", kFlag, "One process for all saves."}});
  declare_idle(table, "any layout reads what any other saved: that of the options counts",
               {{"use-mp-args-from-checkpoint-args", kFlag, "The checkpoint's layout."}});
  declare_idle(table, "a tokenizer that is given counts in any case",
               {{"no-use-tokenizer-model-from-checkpoint-args", kFlag, "The tokenizer given."}});
  declare_idle(table, "a load that is missing is always an error",
               {{"exit-on-missing-checkpoint", kFlag, "Ends where load is missing."}});
  declare_later(table, "checkpoints in local memory",
                {{"non-persistent-save-interval", kInteger, "Steps between them."},
                 {"non-persistent-ckpt-type", kText, "Where they are."}});
  declare_later(table, "conversion between formats",
                {{"pretrained-checkpoint", kText, "Another checkpoint to start from."},
                 {"ckpt-convert-format", kText, "The format of a conversion."},
                 {"ckpt-convert-save", kText, "Where a conversion goes."}});
  declare_later(table, "hashes of weights",
                {{"check-weight-hash-across-dp-replicas-interval", kInteger,
                  "Steps between comparisons of copies."}});
}

void declare_logs_and_data(OptionTable& table) {
  declare_idle(table, "metrics.jsonl, and with tensorboard-dir TensorBoard, have every figure",
               {{"log-timers-to-tensorboard", kFlag, "Timings in TensorBoard."},
                {"log-memory-to-tensorboard", kFlag, "Memory in TensorBoard."},
                {"log-validation-ppl-to-tensorboard", kFlag, "Perplexity in TensorBoard."},
                {"log-batch-size-to-tensorboard", kFlag, "The batch in TensorBoard."},
                {"log-world-size-to-tensorboard", kFlag, "The ranks in TensorBoard."},
                {"log-loss-scale-to-tensorboard", kFlag, "The loss's scale in TensorBoard."},
                {"log-learning-rate-to-tensorboard", kFlag, "The rate in TensorBoard."},
                {"tensorboard-log-interval", kInteger, "Steps between its records."},
                {"tensorboard-queue-size", kInteger, "Records that wait."},
                {"log-progress", kFlag, "A file of the progress."},
                {"log-straggler", kFlag, "Names slow ranks."},
                {"logging-level", kInteger, "Which lines are printed."},
                {"timing-log-option", kText, "Which rank's timings."},
                {"no-barrier-with-level-1-timing", kFlag, "No barrier around timings."},
                {"log-energy", kFlag, "The energy of a step."},
                {"use-pytorch-profiler", kFlag, "PyTorch's profiler."},
                {"profile-ranks", kTexts, "Ranks that are profiled."},
                {"record-memory-history", kFlag, "A history of memory."},
                {"memory-snapshot-path", kText, "Where that goes."}});
  declare_idle(table, "nothing is sent to Weights & Biases; metrics.jsonl has every figure",
               {{"wandb-project", kText, "The project of Weights & Biases."},
                {"wandb-exp-name", kText, "The run's name there."},
                {"wandb-entity", kText, "The owner there."},
                {"wandb-save-dir", kText, "Its local folder."}});
  declare_idle(table, "SIGTERM always saves and ends the run",
               {{"exit-signal-handler", kFlag, "Saves at SIGTERM."}});
  declare_idle(table, "data is mapped into memory, and masks follow from the documents",
               {{"no-create-attention-mask-in-dataloader", kFlag, "No masks from the loader."},
                {"no-mmap-bin-files", kFlag, "Reads files instead of mapping them."},
                {"num-dataset-builder-threads", kInteger, "Threads that build indices."},
                {"no-data-sharding", kFlag, "Shuffles without shards."}});
  table.add_fieldless("dataloader-type", ValueKind::kChoice, "The order of samples.")
      .one_of({Choice("single"),
               {"cyclic", Standing::kNotYet, "samples in another order"},
               {"external", Standing::kNotYet, "a loader of one's own"}});
  declare_later(table, "data apart for training, validation and test: see split",
                {{"train-data-path", kTexts, "Data of training."},
                 {"valid-data-path", kTexts, "Data of validation."},
                 {"test-data-path", kTexts, "Data of the test."},
                 {"data-args-path", kText, "A file with the data's names."},
                 {"per-split-data-args-path", kText, "A file with the data's names."}});
  declare_later(table, "fine-tuning is a command of its own, moetron sft",
                {{"sft", kFlag, "Trains on conversations."},
                 {"sft-tokenizer-prompt-format", kText, "How conversations become text."}});
  declare_later(table, "evaluation alone", {{"skip-train", kFlag, "Evaluates only."}});
  declare_later(table, "steps that are left out",
                {{"iterations-to-skip", kTexts, "Steps that are left out."}});
  table
      .add_fieldless("tokenizer-type", ValueKind::kChoice,
                     "The kind of tokenizer: what tokenizer-model names, whichever it is; "
                     "NullTokenizer: none, "
                     "and the vocabulary is vocab-size, where Megatron's has one more.")
      .one_of({Choice("HuggingFaceTokenizer"),
               Choice("GPTSentencePieceTokenizer"),
               Choice("NullTokenizer"),
               {"GPT2BPETokenizer", Standing::kNotYet, "vocabularies of a vocab-file and merges"},
               {"Llama2Tokenizer", Standing::kNotYet,
                "a token before every text: GPTSentencePieceTokenizer puts none"},
               {"SentencePieceTokenizer", Standing::kNotYet,
                "tokens that are added to a model: GPTSentencePieceTokenizer adds none"},
               {"TikTokenizer", Standing::kNotYet, "vocabularies in JSON"},
               {"Llama3Tokenizer", Standing::kNotYet,
                "a token before every text: HuggingFaceTokenizer puts none"},
               {"MultimodalTokenizer", Standing::kNotYet, "vision towers"}});
  declare_later(table, "vocabularies of a vocab-file and merges",
                {{"vocab-file", kText, "A vocabulary."}, {"merge-file", kText, "Its merges."}});
  declare_idle(table, "the tokenizer's files say it",
               {{"tiktoken-pattern", kText, "How text is cut."},
                {"tiktoken-num-special-tokens", kInteger, "How many tokens are special."},
                {"tiktoken-special-tokens", kTexts, "Which tokens are special."},
                {"trust-remote-code", kFlag, "Runs code of the Hub."},
                {"tokenizer-hf-use-fast", kFlag, "The fast tokenizer."},
                {"tokenizer-hf-include-special-tokens", kFlag, "Special tokens, too."}});
}

}  // namespace

void declare_megatron(OptionTable& table) {
  table.begin_group("megatron", "Further options of Megatron", {Command::kPretrain});
  declare_numerics(table);
  declare_experts(table);
  declare_fusions(table);
  declare_communication(table);
  declare_optimizer_details(table);
  declare_checkpoints(table);
  declare_logs_and_data(table);
}

}  // namespace moetron
