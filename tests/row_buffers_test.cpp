// Who owns dispatched rows, and until when: dispatchers whose rows lie in buffers of their own,
// which they take back with the last reference, and spoil at once.
#include <mutex>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layout_harness.h"
#include "moetron/models/model.h"
#include "moetron/pipeline/wrapped_layer.h"

namespace moetron {
namespace {

// Buffers of a rank, and how many are lent at once. Buffers may outlive the pool.
class BufferPool {
 public:
  // A copy of `rows` that lies in a buffer.
  at::Tensor lend(const at::Tensor& rows) {
    auto buffer = std::make_shared<at::Tensor>(rows.detach().clone());
    books_->lent.insert(buffer.get());
    books_->most = std::max(books_->most, books_->lent.size());
    return at::from_blob(
        buffer->data_ptr(), buffer->sizes(),
        [books = books_, buffer](void*) {
          buffer->fill_(NAN);  // who reads it now reads what belongs to others
          books->lent.erase(buffer.get());
        },
        buffer->options());
  }

  size_t num_lent() const { return books_->lent.size(); }
  size_t most_lent() const { return books_->most; }

 private:
  struct Books {
    std::set<const at::Tensor*> lent;
    size_t most = 0;
  };
  std::shared_ptr<Books> books_ = std::make_shared<Books>();
};

class LendingDispatcher final : public WrappedDispatcher {
 public:
  LendingDispatcher(Dispatcher& inner, BufferPool& pool) : WrappedDispatcher(inner), pool_(pool) {}

 private:
  Pending<Dispatched> send_tokens(const Value& tokens, const Routing& routing) override {
    Pending<Dispatched> sent = WrappedDispatcher::send_tokens(tokens, routing);
    return Pending<Dispatched>([this, sent = std::move(sent)]() mutable {
      Dispatched dispatched = sent.finish();
      dispatched.rows.data = pool_.lend(dispatched.rows.data);
      return dispatched;
    });
  }

  BufferPool& pool_;
};

class LendingLayer final : public WrappedLayer {
 public:
  LendingLayer(std::unique_ptr<Layer> layer, BufferPool& pool)
      : WrappedLayer(std::move(layer)), dispatcher_(*WrappedLayer::dispatcher(), pool) {}

  Dispatcher* dispatcher() override { return &dispatcher_; }

 private:
  LendingDispatcher dispatcher_;
};

constexpr int64_t kMoeLayers = 4;

TrainedTask four_moe_layers() {
  TrainedTask task{.config = tiny_deepseek(), .steps = 2, .seq_length = 8};
  task.config.num_layers = 1 + kMoeLayers;
  return task;
}

struct Lent {
  size_t most = 0;  // of the rank that lent most
  std::string difference;
};

// Trains with and without buffers.
Lent train_with_buffers(const LayoutCase& layout) {
  TrainedTask task = four_moe_layers();
  const TrainedOutcome wanted = train_in_layout(task, layout);
  std::vector<BufferPool> pools(static_cast<size_t>(layout.world));
  task.change_model = [&](Model& model, Communicator& world) {
    for (Chunk& chunk : model.chunks()) {
      for (auto& layer : chunk.layers) {
        if (!layer->program().has_experts()) continue;
        layer = std::make_unique<LendingLayer>(std::move(layer),
                                               pools[static_cast<size_t>(world.rank())]);
      }
    }
  };
  Lent lent;
  lent.difference = first_difference(train_in_layout(task, layout), wanted);
  for (const BufferPool& pool : pools) {
    EXPECT_EQ(pool.num_lent(), 0u) << layout.name();
    lent.most = std::max(lent.most, pool.most_lent());
  }
  return lent;
}

TEST(RowBuffers, AreGivenBackAndNotReadAgain) {
  for (const ScheduleKind kind :
       {ScheduleKind::k1F1B, ScheduleKind::kZbV, ScheduleKind::kDualPipeV}) {
    for (const Recompute recompute :
         {Recompute::kNothing, Recompute::kMoeLayer, Recompute::kLayer}) {
      LayoutCase layout{.world = 4, .pp = 2, .ep = 2, .schedule = {.kind = kind}};
      layout.model.recompute.kind = recompute;
      EXPECT_EQ(train_with_buffers(layout).difference, "") << layout.name();
    }
  }
}

// From dispatch to the weight gradient of its layer, each micro-batch that is held lends one buffer
// a layer; recomputed experts lend none between their forward and their backward.
TEST(RowBuffers, AreHeldNoLongerThanTheScheduleHoldsTheMicroBatch) {
  const LayoutCase one{.world = 1};  // a micro-batch at a time
  EXPECT_EQ(train_with_buffers(one).most, static_cast<size_t>(kMoeLayers));
  LayoutCase recomputed = one;
  recomputed.model.recompute.kind = Recompute::kMoeLayer;
  EXPECT_EQ(train_with_buffers(recomputed).most, 1u);
}

}  // namespace
}  // namespace moetron
