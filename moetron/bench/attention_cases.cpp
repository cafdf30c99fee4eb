#include "moetron/bench/attention_cases.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/arch/rope.h"
#include "moetron/autograd/segment.h"
#include "moetron/nn/fused_attention.h"

namespace moetron {
namespace {

// Conversations as they are packed: log-normal lengths around 600 tokens, by a fixed seed, cut
// where a sequence ends, the longest of a sequence first.
DocumentBounds usual_documents(int64_t batch, int64_t seq) {
  constexpr double kMeanLength = 600, kSigma = 0.8;
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> lengths(std::log(kMeanLength) - kSigma * kSigma / 2, kSigma);
  DocumentBounds documents{.on_host = {0}, .on_device = {}};
  for (int64_t sequence = 0; sequence < batch; ++sequence) {
    std::vector<int64_t> of_one;
    for (int64_t left = seq; left > 0; left -= of_one.back())
      of_one.push_back(std::clamp<int64_t>(static_cast<int64_t>(lengths(random)), 1, left));
    std::ranges::sort(of_one, std::greater<>());
    for (const int64_t length : of_one)
      documents.on_host.push_back(documents.on_host.back() + length);
  }
  documents.on_device = at::tensor(documents.on_host, at::kInt).to(at::kCUDA);
  return documents;
}

// Pairs of query and key, both halves of the square.
double pairs_of(const DocumentBounds& documents) {
  double pairs = 0;
  for (size_t i = 1; i < documents.on_host.size(); ++i) {
    const auto length = static_cast<double>(documents.on_host[i] - documents.on_host[i - 1]);
    pairs += length * length;
  }
  return pairs;
}

// FLOPs as published ones are counted: half of the square is masked, and the backward is 2.5 times
// the forward. `what`: begins with a space.
void visit_one(const CasePlace& place, const ModelConfig& model, int64_t batch, int64_t seq,
               const DocumentBounds& documents, const char* what, const VisitCase& visit) {
  const int64_t n = model.num_attention_heads, d = model.head_dim, v_dim = model.value_head_dim();
  const int64_t groups = model.mla ? n : model.num_key_value_heads;
  const at::Tensor q = place.random({batch, seq, n, d}), k = place.random({batch, seq, groups, d}),
                   v = place.random({batch, seq, groups, v_dim}),
                   d_mixed = place.random({batch, seq, n, v_dim});
  const double pairs = documents.defined() ? pairs_of(documents)
                                           : static_cast<double>(batch) * static_cast<double>(seq) *
                                                 static_cast<double>(seq);
  const double flops = pairs * static_cast<double>(n * (d + v_dim));
  const double scale = attention_softmax_scale(model);
  std::optional<SegmentRun> run;
  const auto forward = [&] {
    run.emplace(/*with_grad=*/true);
    run->output(
        fused_attention(run->input(q), run->input(k), run->input(v), documents, scale, *run));
  };
  const std::string shape = concat(shape_text(q), " ", shape_text(k));
  visit({concat("attention forward", what), shape, bytes_of({q, k, v, d_mixed}), flops, forward});
  visit({concat("attention backward", what), shape, bytes_of({d_mixed, d_mixed, q, k, v, q, k, v}),
         2.5 * flops, [&] { run->backward({d_mixed}); }, forward});
}

}  // namespace

void visit_attention(const CasePlace& place, const ModelConfig& model, int64_t batch, int64_t seq,
                     const VisitCase& visit) {
  visit_one(place, model, batch, seq, {}, "", visit);
}

void visit_packed_attention(const CasePlace& place, const ModelConfig& model, int64_t batch,
                            int64_t seq, const VisitCase& visit) {
  const DocumentBounds documents = usual_documents(batch, seq);
  visit_one(place, model, batch, seq, documents, " of packed documents", visit);
  const int64_t alike = std::max<int64_t>(
      64, std::llround(pairs_of(documents) / static_cast<double>(batch * seq) / 64) * 64);
  visit_one(place, model, batch * seq / alike, alike, {}, " of alike sequences", visit);
  DocumentBounds whole{.on_host = {0}, .on_device = {}};
  for (int64_t i = 1; i <= batch; ++i) whole.on_host.push_back(i * seq);
  whole.on_device = at::tensor(whole.on_host, at::kInt).to(at::kCUDA);
  visit_one(place, model, batch, seq, whole, " of a document a sequence", visit);
}

}  // namespace moetron
