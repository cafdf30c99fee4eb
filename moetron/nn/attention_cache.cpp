#include "moetron/nn/attention_cache.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr int64_t kFirstRoom = 64;  // tokens

// `room` with space for `tokens` rows, of which `used` are kept.
at::Tensor grown(const at::Tensor& room, const at::Tensor& like, int64_t used, int64_t tokens) {
  if (room.defined() && room.size(0) >= tokens) return room;
  const int64_t doubled = room.defined() ? 2 * room.size(0) : kFirstRoom;
  at::Tensor larger =
      at::empty({std::max(tokens, doubled), like.size(1), like.size(2)}, like.options());
  if (used > 0) larger.narrow(0, 0, used).copy_(room.narrow(0, 0, used));
  return larger;
}

}  // namespace

KeysValues AttentionCache::append(int64_t sequence, const at::Tensor& keys,
                                  const at::Tensor& values) {
  Stored& stored = sequences_[sequence];
  const int64_t num_new = keys.size(0), all = stored.tokens + num_new;
  auto& [room_of_keys, room_of_values] = stored.rooms;
  room_of_keys = grown(room_of_keys, keys, stored.tokens, all);
  room_of_values = grown(room_of_values, values, stored.tokens, all);
  room_of_keys.narrow(0, stored.tokens, num_new).copy_(keys);
  room_of_values.narrow(0, stored.tokens, num_new).copy_(values);
  stored.tokens = all;
  return {room_of_keys.narrow(0, 0, all), room_of_values.narrow(0, 0, all)};
}

void AttentionCache::truncate(int64_t sequence, int64_t tokens) {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) return;
  MT_CHECK(tokens >= 0 && tokens <= found->second.tokens, "a cache of ", found->second.tokens,
           " tokens cannot be cut to ", tokens);
  if (tokens == 0) {
    sequences_.erase(found);
  } else {
    found->second.tokens = tokens;
  }
}

void KeyValueCache::truncate(int64_t sequence, int64_t tokens) {
  for (AttentionCache& layer : layers_) layer.truncate(sequence, tokens);
}

}  // namespace moetron
