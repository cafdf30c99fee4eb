// Conversations of any shape as OpenAI's messages, a line each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "moetron/chat/conversation_file.h"

namespace moetron {

// The record as conversation.h reads it back: {"messages", "tools"?, "chat_template_kwargs"?}, and
// for a pair the messages that both share, "chosen" and "rejected".
Json messages_record(const ConversationRecord& record);

// `prefix` itself where it names a JSON file, else with .jsonl behind it.
std::filesystem::path messages_path(const std::string& prefix);

// Writes all conversations of `inputs` that can be taken; with `strict` the first that cannot is an
// InputError. The file appears whole or not at all. InputError, too, where nothing could be taken.
// `progress`: bytes of a file done and in all; may be empty.
ConversationCounts write_messages(const std::vector<std::filesystem::path>& inputs,
                                  const std::filesystem::path& output,
                                  std::optional<ConversationShape> shape, bool strict,
                                  const std::function<void(uint64_t, uint64_t)>& progress = {});

}  // namespace moetron
