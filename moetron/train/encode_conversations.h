// A file of conversations as tokens, in a cache that is made once.
#pragma once

#include <filesystem>
#include <memory>

namespace moetron {

class ChatEncoder;

struct EncodeRequest {
  std::filesystem::path file;   // data of any shape that chat/conversation.h knows
  std::filesystem::path cache;  // folder, data/conversation_cache.h
  std::shared_ptr<const ChatEncoder> encoder;
  bool pairs = false;  // takes pairs alone, both sides of each; else of a pair the chosen one
  int64_t vocab_size = 0;
  int num_threads = 1;
  bool shows_progress = false;  // with a bar, where stderr is a terminal
};

// Encodes the records on threads and keeps their order. Those that are refused, that the template
// refuses, or that hold nothing to train on, are left out and counted. The cache's facts are
// {"taken", "refused", "summary", "first_refused": sentence or null, "lost_turns", "is_array"}.
// Of a pair only what stands behind the messages that both sides begin with is a target; the chosen
// side is added first, then the rejected one.
// InputError where the file cannot be read, or no conversation of it can be used.
void encode_conversations(const EncodeRequest& request);

}  // namespace moetron
