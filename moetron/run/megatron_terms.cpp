#include "moetron/run/megatron_terms.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string_view>

#include "moetron/base/parse_number.h"

namespace moetron {
namespace {

constexpr const char* kLayout = "pipeline-model-parallel-layout";
constexpr const char* kPattern = "moe-layer-freq";
constexpr size_t kMostLetters = 100000;
constexpr int64_t kMostLayers = 100000;

// "*3" at the front of the text; 1 without it.
int64_t take_times(std::string_view& text, const char* option) {
  if (!text.starts_with('*')) return 1;
  text.remove_prefix(1);
  const std::optional<int64_t> times = take_number<int64_t>(text);
  MT_CHECK_CONFIG(times && *times >= 0 && *times <= kMostLayers, option,
                  ": behind * must be a number from 0 to ", kMostLayers);
  return *times;
}

void append_times(std::string& out, const std::string& part, int64_t times) {
  MT_CHECK_CONFIG(out.size() + part.size() * static_cast<size_t>(times) <= kMostLetters, kLayout,
                  " has more than ", kMostLetters, " letters");
  for (int64_t i = 0; i < times; ++i) out += part;
}

// Without commas, blanks and repetitions.
std::string written_out(std::string text) {
  std::erase_if(text, [](char c) { return c == ',' || c == ' '; });
  std::string letters;
  for (std::string_view rest = text; !rest.empty();) {
    std::string part(1, rest.front());
    rest.remove_prefix(1);
    if (part == "(") {
      const size_t end = rest.find(')');
      MT_CHECK_CONFIG(end != std::string_view::npos, kLayout, " (", text,
                      "): a bracket is not closed");
      part = written_out(std::string(rest.substr(0, end)));
      rest.remove_prefix(end + 1);
    }
    append_times(letters, part, take_times(rest, kLayout));
  }
  return letters;
}

int64_t rank_count(const Options& options) {
  return options.parallel.pipeline_model_parallel_size;
}

class Translation {
 public:
  Translation(Options& options, Mistakes& mistakes) : options_(options), mistakes_(mistakes) {}

  void run() {
    count_samples();
    mistakes_.collect([&] { place_experts(); });
    count_shared_experts();
    mistakes_.collect([&] { divide_layers(); });
    choose_recompute();
  }

 private:
  void count_samples() {
    TrainingOptions& training = options_.training;
    if (!training.train_samples) return;
    const int64_t samples = *training.train_samples;
    mistakes_.check(training.train_iters == 0, "train-iters (", training.train_iters,
                    ") and train-samples (", samples,
                    ") both say how long the run is: give one of them");
    if (training.global_batch_size < 1) return;
    training.train_iters = samples / training.global_batch_size;
    mistakes_.check(training.train_iters >= 1, "train-samples (", samples,
                    ") must be at least global-batch-size (", training.global_batch_size, ")");
  }

  void place_experts() {
    MoeOptions& moe = options_.moe;
    const std::string& pattern = moe.moe_layer_freq;
    if (pattern.empty()) return;
    const auto num_layers = options_.model.num_layers;
    const std::vector<bool> experts = expert_layers(pattern, num_layers.value_or(1));
    const auto dense = std::find(experts.begin(), experts.end(), true) - experts.begin();
    const auto count = static_cast<int64_t>(experts.size());
    MT_CHECK_CONFIG(!num_layers || count == *num_layers, kPattern, " (", pattern, ") is of ", count,
                    " layers, but num-layers is ", num_layers.value_or(0));
    MT_CHECK_CONFIG(std::count(experts.begin(), experts.end(), true) == count - dense, kPattern,
                    " (", pattern,
                    ") is not there yet: dense layers behind layers with experts; dense layers "
                    "come first");
    MT_CHECK_CONFIG(moe.first_k_dense_replace.value_or(dense) == dense, kPattern, " (", pattern,
                    ") contradicts first-k-dense-replace (", moe.first_k_dense_replace.value_or(0),
                    ")");
    const bool has_latents =
        options_.model.kv_lora_rank || options_.model.multi_latent_attention.value_or(false);
    MT_CHECK_CONFIG(dense == 0 || has_latents || !options_.checkpoint.load.empty(), kPattern, " (",
                    pattern, ") is not there yet: dense layers in front of Qwen's");
    if (dense > 0 || has_latents) moe.first_k_dense_replace = dense;
  }

  void count_shared_experts() {
    MoeOptions& moe = options_.moe;
    if (!moe.moe_shared_expert_intermediate_size) return;
    const int64_t width = *moe.moe_shared_expert_intermediate_size;
    const int64_t of_expert = moe.moe_ffn_hidden_size.value_or(0);
    if (!mistakes_.check(of_expert >= 1 && width % of_expert == 0,
                         "moe-shared-expert-intermediate-size (", width,
                         ") must be a multiple of moe-ffn-hidden-size (", of_expert, ")"))
      return;
    const int64_t number = width / of_expert;
    mistakes_.check(moe.num_shared_experts.value_or(number) == number,
                    "moe-shared-expert-intermediate-size (", width,
                    ") contradicts num-shared-experts (", moe.num_shared_experts.value_or(0),
                    ") times moe-ffn-hidden-size (", of_expert, ")");
    moe.num_shared_experts = number;
  }

  void divide_layers() {
    ParallelOptions& parallel = options_.parallel;
    const bool has_ends =
        parallel.decoder_first_pipeline_num_layers || parallel.decoder_last_pipeline_num_layers;
    const bool counts_ends = parallel.account_for_embedding_in_pipeline_split ||
                             parallel.account_for_loss_in_pipeline_split;
    const int ways = int(!parallel.pipeline_model_parallel_layout.empty()) + int(has_ends) +
                     int(counts_ends) + int(!parallel.hetero_pipeline_stages.empty()) +
                     int(!parallel.virtual_hetero_pipeline_stages.empty());
    if (!has_ends && !counts_ends && parallel.pipeline_model_parallel_layout.empty()) return;
    MT_CHECK_CONFIG(ways == 1, kLayout,
                    ", decoder-first- and -last-pipeline-num-layers, account-for-embedding- and "
                    "-loss-in-pipeline-split and hetero-pipeline-stages all say which layers a "
                    "stage has: give one of them");
    if (!parallel.pipeline_model_parallel_layout.empty()) {
      divide_by_letters();
    } else {
      divide_with_ends(has_ends);
    }
  }

  void divide_by_letters() {
    ParallelOptions& parallel = options_.parallel;
    const std::string& layout = parallel.pipeline_model_parallel_layout;
    parallel.hetero_pipeline_stages = layers_of_layout(layout);
    const auto& layers = parallel.hetero_pipeline_stages;
    const int64_t sum = std::accumulate(layers.begin(), layers.end(), int64_t{0});
    const auto stages = static_cast<int64_t>(layers.size());
    const auto num_layers = options_.model.num_layers;
    mistakes_.check(!num_layers || sum == *num_layers, kLayout, " (", layout, ") has ", sum,
                    " layers, but num-layers is ", num_layers.value_or(0));
    mistakes_.check(stages % rank_count(options_) == 0, kLayout, " (", layout, ") has ", stages,
                    " stages, no multiple of pipeline-model-parallel-size (", rank_count(options_),
                    ")");
  }

  // Megatron's arithmetic: the ends have layers of their own, or count for one more; what is left
  // is divided evenly among ranks, and a rank's layers among its virtual stages.
  void divide_with_ends(bool has_ends) {
    ParallelOptions& parallel = options_.parallel;
    MT_CHECK_CONFIG(options_.model.num_layers, "an uneven division of layers needs num-layers");
    const int64_t ranks = rank_count(options_);
    MT_CHECK_CONFIG(ranks > 1, "an uneven division of layers needs pipeline-model-parallel-size (",
                    ranks, ") above 1");
    std::vector<int64_t> of_rank(static_cast<size_t>(ranks), -1);
    int64_t left = *options_.model.num_layers;
    if (has_ends) {
      of_rank.front() = parallel.decoder_first_pipeline_num_layers.value_or(-1);
      of_rank.back() = parallel.decoder_last_pipeline_num_layers.value_or(-1);
      for (const int64_t given : {of_rank.front(), of_rank.back()})
        left -= std::max<int64_t>(given, 0);
    } else {
      left += int(parallel.account_for_embedding_in_pipeline_split) +
              int(parallel.account_for_loss_in_pipeline_split);
    }
    const int64_t sharing = std::count(of_rank.begin(), of_rank.end(), -1);
    MT_CHECK_CONFIG(sharing == 0 ? left == 0 : left >= 0 && left % sharing == 0, "num-layers (",
                    *options_.model.num_layers, ") leaves ", left, " layers for ", sharing,
                    " pipeline ranks, which must share them evenly");
    for (int64_t& layers : of_rank)
      if (layers < 0) layers = left / sharing;
    const int64_t chunks = chunks_of(of_rank);
    std::vector<int64_t>& stages = parallel.hetero_pipeline_stages;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      for (const int64_t layers : of_rank) {
        MT_CHECK_CONFIG(layers % chunks == 0, "a pipeline rank with ", layers,
                        " layers cannot divide them among ", chunks, " virtual stages");
        stages.push_back(layers / chunks);
      }
    }
    if (has_ends) return;
    stages.front() -= int(parallel.account_for_embedding_in_pipeline_split);
    stages.back() -= int(parallel.account_for_loss_in_pipeline_split);
  }

  int64_t chunks_of(const std::vector<int64_t>& of_rank) const {
    const ParallelOptions& parallel = options_.parallel;
    if (const auto stages = parallel.num_virtual_stages_per_pipeline_rank) return *stages;
    const auto layers = parallel.num_layers_per_virtual_pipeline_stage;
    if (!layers) return 1;
    MT_CHECK_CONFIG(of_rank.back() % *layers == 0, "num-layers-per-virtual-pipeline-stage (",
                    *layers, ") must divide the ", of_rank.back(), " layers of a pipeline rank");
    return of_rank.back() / *layers;
  }

  void choose_recompute() {
    MemoryOptions& memory = options_.memory;
    for (const std::string& module : memory.recompute_modules) {
      if (module == "moe") memory.moe_layer_recompute = true;
      if (module == "moe_act" && !memory.moe_layer_recompute && !memory.recompute_granularity)
        memory.mlp_recompute = true;
      mistakes_.check(module == "moe" || module == "moe_act" || module == "core_attn",
                      "recompute-modules (", module,
                      ") is not there yet: recompute of that module alone; moe, moe_act and "
                      "core_attn work");
    }
    if (memory.moe_layer_recompute || memory.recompute_granularity) memory.mlp_recompute = false;
    if (memory.recompute_granularity) memory.moe_layer_recompute = false;
  }

  Options& options_;
  Mistakes& mistakes_;
};

}  // namespace

std::vector<int64_t> layers_of_layout(const std::string& layout) {
  const std::string letters = written_out(layout);
  MT_CHECK_CONFIG(letters.find('m') == std::string::npos, kLayout, " (", layout,
                  ") is not there yet: multi-token prediction (m)");
  const size_t stranger = letters.find_first_not_of("EtL|");
  MT_CHECK_CONFIG(stranger == std::string::npos, kLayout, " (", layout, ") has ",
                  letters[std::min(stranger, letters.size() - 1)],
                  ", which is none of E, t, L and |");
  const auto is_once = [&](char letter, size_t place) {
    return std::count(letters.begin(), letters.end(), letter) == 1 && letters.find(letter) == place;
  };
  MT_CHECK_CONFIG(!letters.empty() && is_once('E', 0) && is_once('L', letters.size() - 1), kLayout,
                  " (", layout, ") must begin with the one E and end with the one L");
  std::vector<int64_t> layers{0};
  for (const char letter : letters) {
    if (letter == '|') layers.push_back(0);
    if (letter == 't') ++layers.back();
  }
  return layers;
}

std::vector<bool> expert_layers(const std::string& pattern, int64_t num_layers) {
  std::string text = pattern;
  std::erase_if(text, [](char c) { return c == ' ' || c == '(' || c == ')'; });
  std::string_view rest = text;
  std::vector<bool> layers;
  if (const auto every = take_number<int64_t>(rest)) {
    MT_CHECK_CONFIG(rest.empty() && *every >= 1, kPattern, " (", pattern,
                    ") must be 1 or more, or a list like ([0]*3+[1]*58)");
    for (int64_t layer = 0; layer < num_layers; ++layer) layers.push_back(layer % *every == 0);
    return layers;
  }
  while (!rest.empty()) {
    const size_t end = rest.find(']');
    MT_CHECK_CONFIG(rest.front() == '[' && end != std::string_view::npos, kPattern, " (", pattern,
                    ") must be a list like ([0]*3+[1]*58)");
    std::vector<bool> part;
    for (const char c : rest.substr(1, end - 1)) {
      MT_CHECK_CONFIG(c == '0' || c == '1' || c == ',', kPattern, " (", pattern,
                      ") must hold nothing but 0 and 1");
      if (c != ',') part.push_back(c == '1');
    }
    rest.remove_prefix(end + 1);
    const int64_t times = take_times(rest, kPattern);
    MT_CHECK_CONFIG(
        static_cast<int64_t>(layers.size()) + static_cast<int64_t>(part.size()) * times <=
            kMostLayers,
        kPattern, " is of more than ", kMostLayers, " layers");
    for (int64_t i = 0; i < times; ++i) layers.insert(layers.end(), part.begin(), part.end());
    MT_CHECK_CONFIG(rest.empty() || (rest.front() == '+' && rest.size() > 1), kPattern, " (",
                    pattern, ") must be a list like ([0]*3+[1]*58)");
    if (!rest.empty()) rest.remove_prefix(1);
  }
  return layers;
}

Options in_own_terms(const Options& given, Mistakes& mistakes) {
  Options options = given;
  Translation(options, mistakes).run();
  return options;
}

}  // namespace moetron
