#include "moetron/run/shrunk_run.h"

#include <algorithm>
#include <numeric>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr int64_t kWidth = 8;  // of a head, or of a rank's part of a projection
constexpr int64_t kHidden = 32;
constexpr int64_t kSequence = 16;  // tokens

// The greatest divisor of `count` that is at most `most`, and at least two if `count` is.
int64_t divided_down(int64_t count, int64_t most) {
  int64_t best = 1;
  for (int64_t divisor = 2; divisor <= count; ++divisor) {
    if (count % divisor != 0) continue;
    if (divisor <= most || best == 1) best = divisor;
  }
  return best;
}

ParallelSizes shrink_sizes(const ParallelSizes& asked) {
  ParallelSizes sizes = asked;
  // The fewest ranks of a stage.
  const auto least = [&] { return std::lcm(sizes.tp, sizes.ep * sizes.tpe); };
  const auto room = [](int64_t others) { return std::max<int64_t>(1, kMostCheckedRanks / others); };
  const int64_t copies = asked.tp * asked.dp / least();
  int64_t kept_copies = copies;
  if (sizes.world > kMostCheckedRanks) {
    while (kept_copies > 1 &&
           (copies % kept_copies != 0 || sizes.pp * least() * kept_copies > kMostCheckedRanks)) {
      --kept_copies;
    }
    if (sizes.pp * least() > kMostCheckedRanks) sizes.pp = divided_down(sizes.pp, room(least()));
    for (int64_t* axis : {&sizes.ep, &sizes.tpe, &sizes.tp}) {
      const int64_t others = sizes.pp * least() / *axis;
      if (sizes.pp * least() > kMostCheckedRanks) *axis = divided_down(*axis, room(others));
    }
  }
  return parallel_sizes(sizes.pp * least() * kept_copies, sizes.tp, sizes.pp, sizes.ep, sizes.tpe);
}

// As few as fill the pipeline, of those that the schedule can run.
int shrink_micro_batches(ScheduleRequest request, int64_t asked) {
  const int fill = 2 * request.num_ranks;
  for (int count = static_cast<int>(std::min<int64_t>(asked, fill)); count < asked; ++count) {
    request.num_micro_batches = count;
    try {
      check_schedule(request);
      return count;
    } catch (const ConfigError&) {  // the next may do
    }
  }
  return static_cast<int>(asked);
}

// The layers of a stage that stay, by their numbers in the whole model.
std::vector<int64_t> kept_layers(const ModelConfig& model, const StageLayers& stage,
                                 int64_t num_of_a_kind) {
  std::vector<int64_t> kept;
  int64_t num_dense = 0, num_moe = 0;
  for (int64_t layer = stage.first; layer < stage.first + stage.count; ++layer) {
    int64_t& count = model.is_moe_layer(layer) ? num_moe : num_dense;
    if (count++ < num_of_a_kind) kept.push_back(layer);
  }
  return kept;
}

// Where there are fewer stages than before, the first and the last ones stay.
size_t stage_before(size_t stage, size_t num_stages, size_t num_before) {
  return stage < num_stages / 2 ? stage : num_before - (num_stages - stage);
}

void shrink_stages(const RunSpec& run, RunSpec& small) {
  ScheduleRequest& request = small.pipeline.request;
  request.num_ranks = static_cast<int>(small.sizes.pp);
  const auto num_stages = static_cast<size_t>(placement_of(request).num_stages());
  const int64_t num_of_a_kind = small.recompute.layers_per_input > 1 ? 2 : 1;
  small.recompute.layers_per_input = num_of_a_kind;
  small.pipeline.stages.clear();
  std::vector<int64_t> dense;
  int64_t first = 0;
  for (size_t i = 0; i < num_stages; ++i) {
    StageLayers stage =
        run.pipeline.stages.at(stage_before(i, num_stages, run.pipeline.stages.size()));
    const std::vector<int64_t> kept = kept_layers(run.model, stage, num_of_a_kind);
    stage.first = first;
    stage.count = static_cast<int64_t>(kept.size());
    for (const int64_t layer : kept) {
      if (!run.model.is_moe_layer(layer)) dense.push_back(first);
      ++first;
    }
    small.pipeline.stages.push_back(stage);
  }
  small.model.num_layers = first;
  if (!small.model.moe) return;
  small.model.moe->first_k_dense_replace = 0;
  small.model.moe->decoder_sparse_step = 1;
  small.model.moe->mlp_only_layers = std::move(dense);
}

void shrink_attention(int64_t tp, ModelConfig& model) {
  const int64_t heads = model.num_attention_heads, groups = model.num_key_value_heads;
  if (groups >= tp) {
    model.num_key_value_heads = tp * std::min<int64_t>(2, groups / tp);
    model.num_attention_heads = model.num_key_value_heads * std::min<int64_t>(2, heads / groups);
  } else {  // ranks hold copies of a key-value head
    model.num_key_value_heads = std::gcd(groups, tp);
    model.num_attention_heads = tp * std::min<int64_t>(2, heads / tp);
  }
  model.head_dim = model.rope.dim = kWidth;
  if (!model.mla) return;
  MlaConfig& mla = *model.mla;
  model.num_key_value_heads = model.num_attention_heads;
  mla.qk_nope_head_dim = mla.qk_rope_head_dim = mla.v_head_dim = kWidth;
  model.head_dim = mla.qk_head_dim();
  if (mla.q_lora_rank > 0) mla.q_lora_rank = kWidth * tp;
  mla.kv_lora_rank = kWidth * (2 * tp - 1);  // with the rope part a multiple of tp
}

void shrink_experts(const ParallelSizes& asked, const ParallelSizes& sizes, MoeConfig& moe) {
  const int64_t a_rank = std::min<int64_t>(2, moe.num_experts / asked.ep);
  const int64_t a_group = std::min<int64_t>(2, moe.num_experts / moe.num_groups);
  moe.num_experts =
      std::min(moe.num_experts, std::lcm(sizes.ep * a_rank, moe.num_groups * a_group));
  moe.top_k = std::min({moe.top_k, int64_t{4}, moe.num_experts / moe.num_groups * moe.group_topk});
  moe.expert_intermediate_size = kWidth * std::lcm(sizes.tp, sizes.tpe);
  moe.num_shared_experts = std::min<int64_t>(moe.num_shared_experts, 2);
  moe.shared_intermediate_size = moe.num_shared_experts * moe.expert_intermediate_size;
}

void shrink_model(const ParallelSizes& asked, const ParallelSizes& sizes, ModelConfig& model) {
  model.vocab_size = kCheckedVocabulary;
  model.hidden_size = kHidden;
  model.intermediate_size = kWidth * sizes.tp;
  model.initializer_range = 0.1;  // beside such widths, about what 0.02 is beside real ones
  shrink_attention(sizes.tp, model);
  if (model.moe) shrink_experts(asked, sizes, *model.moe);
}

}  // namespace

RunSpec shrink_run(const RunSpec& run) {
  RunSpec small = run;
  small.sizes = shrink_sizes(run.sizes);
  shrink_model(run.sizes, small.sizes, small.model);
  shrink_stages(run, small);
  BatchSpec& batch = small.batch;
  batch.seq_length = std::min(batch.seq_length, std::max(kSequence, 2 * small.sizes.tp));
  batch.micro_batch_size = std::min<int64_t>(batch.micro_batch_size, 2);
  batch.num_micro_batches =
      shrink_micro_batches(small.pipeline.request, run.batch.num_micro_batches);
  batch.global_batch_size = batch.micro_batch_size * batch.num_micro_batches * small.sizes.dp;
  small.pipeline.request.num_micro_batches = static_cast<int>(batch.num_micro_batches);
  small.dtype = Dtype::kFp32;
  small.fp8.reset();
  small.optimizer.eps = 1e-3;
  small.lr.lr = 1e-3;
  return small;
}

RunSpec without_pipeline(const RunSpec& shrunk) {
  RunSpec plain = shrunk;
  const ParallelSizes& sizes = shrunk.sizes;
  plain.sizes = parallel_sizes(sizes.world / sizes.pp, sizes.tp, 1, sizes.ep, sizes.tpe);
  plain.pipeline.request = {.num_micro_batches = shrunk.pipeline.request.num_micro_batches};
  plain.pipeline.stages = {
      {.count = plain.model.num_layers, .has_embedding = true, .has_head = true}};
  plain.recompute = {};
  plain.optimizer.distributed = false;
  plain.optimizer.overlap_reduce = plain.optimizer.overlap_gather = false;
  return plain;
}

RunSpec on_one_rank(const RunSpec& shrunk) {
  RunSpec one = without_pipeline(shrunk);
  one.batch.num_micro_batches *= one.sizes.dp;
  one.pipeline.request.num_micro_batches = static_cast<int>(one.batch.num_micro_batches);
  one.sizes = parallel_sizes(1, 1, 1, 1, 1);
  return one;
}

std::string describe_axes(const ParallelSizes& sizes) {
  std::string text;
  for (const auto& [name, count] : {std::pair("tp", sizes.tp),
                                    {"tpe", sizes.tpe},
                                    {"ep", sizes.ep},
                                    {"pp", sizes.pp},
                                    {"dp", sizes.dp}}) {
    if (count > 1) text += concat(text.empty() ? "" : ", ", name, " ", count);
  }
  return text.empty() ? "one rank" : text;
}

}  // namespace moetron
