// Keys and values of past tokens, for generation: a layer's, of several sequences. Heads as in
// attention.h: G of keys and values on this rank, D and V wide.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

struct KeysValues {
  at::Tensor keys;    // [S, G, D]
  at::Tensor values;  // [S, G, V]
};

class AttentionCache {
 public:
  // Appends keys [T, G, D] and values [T, G, V] to a sequence, which begins with its first tokens,
  // and returns those of all S tokens so far: views that the next call may write behind.
  KeysValues append(int64_t sequence, const at::Tensor& keys, const at::Tensor& values);
  // Only the first `tokens` stay; 0: nothing of the sequence.
  void truncate(int64_t sequence, int64_t tokens);

 private:
  struct Stored {
    KeysValues rooms;  // grown by doubling, so that a token costs no copy of all before it
    int64_t tokens = 0;
  };
  std::map<int64_t, Stored> sequences_;
};

// One cache a layer, by layer number.
class KeyValueCache {
 public:
  explicit KeyValueCache(int64_t num_layers) : layers_(static_cast<size_t>(num_layers)) {}

  AttentionCache& layer(int64_t index) { return layers_.at(static_cast<size_t>(index)); }
  void truncate(int64_t sequence, int64_t tokens);

  // Which sequence each document of the micro-batch continues.
  std::vector<int64_t> sequences;

 private:
  std::vector<AttentionCache> layers_;
};

}  // namespace moetron
