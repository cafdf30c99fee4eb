#include "moetron/generate/reader.h"

#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

ScheduleRequest one_forward(const PipelineSettings& pipeline) {
  ScheduleRequest request = pipeline.request;
  request.num_micro_batches = 1;
  return request;
}

// The rank of the world that holds the head and is first in every group but the pipeline's.
int rank_of_head(const Mesh& mesh, const Placement& placement) {
  const ParallelSizes& sizes = mesh.sizes();
  const int64_t stage_ranks = sizes.world / sizes.pp;  // pp is the slowest axis
  return static_cast<int>(placement.rank(placement.num_stages() - 1) * stage_ranks);
}

}  // namespace

TextReader::TextReader(Model& model, Mesh& mesh, const PipelineSettings& pipeline)
    : model_(model),
      mesh_(mesh),
      links_(mesh.pipeline(), placement_of(one_forward(pipeline)), model.options().device()),
      executor_(model.chunks(), links_, model.borders(links_.placement())),
      plan_(make_forward_schedule(one_forward(pipeline))),
      head_rank_(rank_of_head(mesh, links_.placement())),
      cache_(model.config().num_layers) {
  for (const Tie& tie : model.ties()) {
    ties_.push_back(std::make_unique<TiedWeight>(tie, mesh, links_.placement(), pipeline.stages));
  }
}

at::Tensor TextReader::read(const std::vector<NewTokens>& next) {
  const at::NoGradGuard no_grad;
  if (std::exchange(shares_ties_, false)) {
    for (const auto& tie : ties_) tie->share_values();
  }
  const MicroBatch batch = micro_batch(next);
  PipelineTask task;
  task.micro_batches = {&batch, 1};
  task.with_grad = false;
  const PipelineOutcome outcome = executor_.run(plan_, task);
  for (const NewTokens& part : next)
    lengths_[part.sequence] += static_cast<int64_t>(part.tokens.size());
  const std::vector<Value>& outputs = outcome.outputs.front();
  return shared(outputs.empty() ? at::Tensor() : outputs.front().data,
                static_cast<int64_t>(next.size()));
}

MicroBatch TextReader::micro_batch(const std::vector<NewTokens>& next) {
  std::vector<int64_t> tokens, positions;
  DocumentBounds documents{.on_host = {0}, .on_device = {}};
  cache_.sequences.clear();
  for (const auto& [sequence, of_sequence] : next) {
    MT_CHECK(!of_sequence.empty(), "sequence ", sequence, " is to be continued by nothing");
    int64_t position = length(sequence);
    for (const int32_t token : of_sequence) {
      tokens.push_back(token);
      positions.push_back(position++);
    }
    documents.on_host.push_back(static_cast<int64_t>(tokens.size()));
    cache_.sequences.push_back(sequence);
  }
  const c10::Device device = model_.options().device();
  documents.on_device = at::tensor(documents.on_host, at::kInt).to(device);
  MicroBatch batch;
  batch.tokens = at::tensor(tokens, at::kLong).unsqueeze(0).to(device);        // [1, tokens]
  batch.positions = at::tensor(positions, at::kLong).unsqueeze(0).to(device);  // [1, tokens]
  batch.documents = std::move(documents);
  batch.num_real_tokens = batch.tokens.numel();
  batch.layout = TokenLayout(mesh_.tensor_group(), batch.tokens.numel());
  batch.cache = &cache_;
  return batch;
}

// Whoever draws from them must draw the same.
at::Tensor TextReader::shared(const at::Tensor& logits, int64_t num_sequences) {
  Communicator& world = mesh_.world();
  if (world.size() == 1) return logits.to(at::kCPU, at::kFloat);
  at::Tensor all = logits.defined() ? logits.to(at::kFloat).contiguous()
                                    : at::empty({num_sequences, model_.config().vocab_size},
                                                model_.options().dtype(at::kFloat));
  world.broadcast(all, head_rank_).wait();
  return all.to(at::kCPU);
}

void TextReader::weights_changed() {
  shares_ties_ = true;
  cache_ = KeyValueCache(model_.config().num_layers);
  lengths_.clear();
}

int64_t TextReader::length(int64_t sequence) const {
  const auto found = lengths_.find(sequence);
  return found == lengths_.end() ? 0 : found->second;
}

void TextReader::truncate(int64_t sequence, int64_t tokens) {
  cache_.truncate(sequence, tokens);
  if (tokens == 0) {
    lengths_.erase(sequence);
  } else if (const auto found = lengths_.find(sequence); found != lengths_.end()) {
    found->second = tokens;
  }
}

}  // namespace moetron
