#include "moetron/chat/write_messages.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/base/file.h"

namespace moetron {
namespace {

Json slice(const Json& messages, size_t begin, size_t end) {
  return Json(messages.begin() + static_cast<std::ptrdiff_t>(begin),
              messages.begin() + static_cast<std::ptrdiff_t>(end));
}

}  // namespace

Json messages_record(const ConversationRecord& record) {
  const Conversation& conversation = record.conversation;
  const size_t count = conversation.messages.size();
  Json result = Json::object();
  result["messages"] = slice(conversation.messages, 0, record.rejected ? record.num_shared : count);
  if (record.rejected) {
    result["chosen"] = slice(conversation.messages, record.num_shared, count);
    result["rejected"] =
        slice(record.rejected->messages, record.num_shared, record.rejected->messages.size());
  }
  if (!conversation.tools.is_null()) result["tools"] = conversation.tools;
  if (!conversation.variables.empty()) result["chat_template_kwargs"] = conversation.variables;
  return result;
}

std::filesystem::path messages_path(const std::string& prefix) {
  const std::string extension = std::filesystem::path(prefix).extension();
  const bool names_file = extension == ".jsonl" || extension == ".json" || extension == ".ndjson";
  return names_file ? prefix : prefix + ".jsonl";
}

ConversationCounts write_messages(const std::vector<std::filesystem::path>& inputs,
                                  const std::filesystem::path& output,
                                  std::optional<ConversationShape> shape, bool strict,
                                  const std::function<void(uint64_t, uint64_t)>& progress) {
  FileWriter writer(output);
  const ConversationCounts counts = read_conversations(
      inputs, shape, strict,
      [&writer](const ConversationRecord& record) {
        writer.write(messages_record(record).dump() + "\n");
      },
      progress);
  MT_CHECK_INPUT(counts.taken() > 0, "no conversation could be taken: ", counts.summary());
  writer.commit();
  return counts;
}

}  // namespace moetron
