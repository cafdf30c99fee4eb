// Records of conversations: what is taken has a user and an assistant, and is read back as it was
// written.
#include "moetron/chat/conversation.h"

#include <cstdlib>

#include "fuzz/fuzz_folder.h"
#include "moetron/chat/write_messages.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  const ConversationResult result = read_conversation(text_of(data, size), "input");
  if (result.record.has_value() == result.refused.has_value()) std::abort();
  if (!result.record) return 0;
  const ConversationResult again =
      read_conversation(messages_record(*result.record).dump(), "input");
  if (!again.record || again.record->conversation.messages != result.record->conversation.messages)
    std::abort();
  return 0;
}
