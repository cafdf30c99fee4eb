#include "moetron/config/suggestion.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <set>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using Words = std::set<std::string, std::less<>>;

constexpr size_t kMostSuggested = 3;

// What transformers' Trainer, LLaMA-Factory, torchtitan and habit say, and what it is here.
const std::multimap<std::string, const char*, std::less<>>& names_elsewhere() {
  static const std::multimap<std::string, const char*, std::less<>> table{
      {"batch-size", "micro-batch-size"},
      {"batch-size", "global-batch-size"},
      {"block-size", "seq-length"},
      {"cutoff-len", "seq-length"},
      {"dataset", "data-path"},
      {"ep", "expert-model-parallel-size"},
      {"epochs", "train-iters"},
      {"etp", "expert-tensor-parallel-size"},
      {"gradient-accumulation-steps", "global-batch-size"},
      {"gradient-checkpointing", "recompute-granularity"},
      {"hidden-dim", "hidden-size"},
      {"intermediate-size", "ffn-hidden-size"},
      {"learning-rate", "lr"},
      {"logging-steps", "log-interval"},
      {"lr-scheduler-type", "lr-decay-style"},
      {"max-grad-norm", "clip-grad"},
      {"max-length", "seq-length"},
      {"max-seq-length", "seq-length"},
      {"max-steps", "train-iters"},
      {"model", "load"},
      {"model-name-or-path", "load"},
      {"num-experts-per-tok", "moe-router-topk"},
      {"num-key-value-heads", "num-query-groups"},
      {"num-train-epochs", "train-iters"},
      {"out", "save"},
      {"output-dir", "save"},
      {"per-device-train-batch-size", "micro-batch-size"},
      {"pp", "pipeline-model-parallel-size"},
      {"resume", "save"},
      {"resume-from-checkpoint", "save"},
      {"save-steps", "save-interval"},
      {"steps", "train-iters"},
      {"threads", "num-threads"},
      {"tp", "tensor-model-parallel-size"},
      {"warmup-steps", "lr-warmup-iters"},
  };
  return table;
}

// Letters to add, drop, replace or swap with a neighbour to turn one name into the other.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> rows(a.size() + 1, std::vector<size_t>(b.size() + 1));
  std::iota(rows[0].begin(), rows[0].end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    rows[i][0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      rows[i][j] = std::min({rows[i - 1][j] + 1, rows[i][j - 1] + 1, replaced});
      const bool is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (is_swap) rows[i][j] = std::min(rows[i][j], rows[i - 2][j - 2] + 1);
    }
  }
  return rows.back().back();
}

Words words_of(std::string_view name) {
  Words words;
  while (!name.empty()) {
    const size_t end = std::min(name.find('-'), name.size());
    if (end > 0) words.emplace(name.substr(0, end));
    name.remove_prefix(std::min(end + 1, name.size()));
  }
  return words;
}

// The names with the least number, each once, if that is at most `bound`.
template <class Number>
std::vector<std::string> least(const std::vector<std::string>& known, size_t bound,
                               const Number& number) {
  std::vector<std::string> found;
  for (const std::string& name : known) {
    const size_t of_name = number(name);
    if (of_name > bound) continue;
    if (of_name < bound) found.clear();
    bound = of_name;
    if (std::find(found.begin(), found.end(), name) == found.end()) found.push_back(name);
  }
  return found;
}

}  // namespace

std::vector<std::string> near_names(std::string_view name, const std::vector<std::string>& known) {
  name = name.substr(0, 64);  // no name is as long, and the distance takes time
  std::vector<std::string> near;
  const auto [first, last] = names_elsewhere().equal_range(name);
  for (auto meant = first; meant != last; ++meant) near.emplace_back(meant->second);
  if (near.empty()) {
    const Words words = words_of(name);
    near = least(known, /*bound=*/8, [&](const std::string& candidate) {
      const Words others = words_of(candidate);
      const bool has_all = std::includes(others.begin(), others.end(), words.begin(), words.end());
      return has_all && !words.empty() ? others.size() - words.size() : SIZE_MAX;
    });
  }
  if (near.empty()) {
    near = least(known, std::max<size_t>(1, name.size() / 4),
                 [&](const std::string& candidate) { return edit_distance(name, candidate); });
  }
  if (near.size() > kMostSuggested) near.resize(kMostSuggested);
  return near;
}

std::string suggestion(std::string_view name, const std::vector<std::string>& known,
                       const char* before) {
  const std::vector<std::string> near = near_names(name, known);
  if (near.empty()) return "";
  std::string text = near.size() == 1 ? "; the nearest known is " : "; near are ";
  for (size_t i = 0; i < near.size(); ++i) {
    text += concat(i == 0 ? "" : i + 1 == near.size() ? " and " : ", ", before, near[i]);
  }
  return text;
}

}  // namespace moetron
