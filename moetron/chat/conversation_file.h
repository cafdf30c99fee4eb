// Files of conversations: JSON lines, a JSON array, or one JSON object, each of them plain, .gz or
// .zst (told by content). Read front to back in bounded memory: a record at a time.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/chat/conversation.h"

namespace moetron {

struct RawRecord {
  std::string json;    // one value
  int64_t number = 0;  // its line of JSON lines, its place in an array, from 1 on
  bool is_line = true;
};

// "FILE line 12" or "FILE record 12".
std::string record_place(const std::filesystem::path& path, const RawRecord& record);

// Calls `take` with the records of a file in order until it returns false. Blank lines, a byte
// order mark and CR before LF are skipped. An array that is cut short or has text behind it gives
// one last record that does not parse. InputError: a file that cannot be read, a damaged .gz or
// .zst, a record above 64 MiB. `progress` (may be empty): bytes of the file done and in all.
void for_each_record(const std::filesystem::path& path, const std::function<bool(RawRecord)>& take,
                     const std::function<void(uint64_t, uint64_t)>& progress = {});

// What reading came to: how many of which shape, how many refused for which reason, and the first
// of each with their places.
class ConversationCounts {
 public:
  void add(const ConversationResult& result);

  int64_t taken() const;
  int64_t refused() const;
  int64_t of_shape(ConversationShape shape) const { return shapes_[static_cast<size_t>(shape)]; }
  int64_t of_refusal(Refusal refusal) const { return refusals_[static_cast<size_t>(refusal)]; }
  const std::vector<RefusedRecord>& examples() const { return examples_; }  // kept: 3 a reason
  // "1000 conversations (990 messages, 10 alpaca)" and, a line a reason, "2 refused, unknown role:
  // FILE line 7 (role \"bard\" of message 2), FILE line 9".
  std::string summary() const;

 private:
  std::array<int64_t, 4> shapes_{};
  std::array<int64_t, kNumRefusals> refusals_{};
  std::vector<RefusedRecord> examples_;
};

// All conversations of some files in order; `take` gets each record that is none of the refused.
// With `strict`, InputError at the first that is refused: its place, the reason and the detail.
ConversationCounts read_conversations(const std::vector<std::filesystem::path>& paths,
                                      std::optional<ConversationShape> shape, bool strict,
                                      const std::function<void(ConversationRecord)>& take,
                                      const std::function<void(uint64_t, uint64_t)>& progress = {},
                                      ConversationUse use = ConversationUse::kTraining);

}  // namespace moetron
