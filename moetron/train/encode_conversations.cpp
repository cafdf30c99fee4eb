#include "moetron/train/encode_conversations.h"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/seconds_since.h"
#include "moetron/chat/conversation_file.h"
#include "moetron/chat/encode.h"
#include "moetron/data/conversation_cache.h"
#include "moetron/data/ordered_workers.h"
#include "moetron/metrics/progress_bar.h"

namespace moetron {
namespace {

constexpr size_t kBatch = 64;  // records that a thread encodes at a time
constexpr size_t kBatchesPerThread = 4;

struct EncodedRecord {
  ConversationResult result;               // of a record that is used, without its conversation
  std::vector<EncodedConversation> sides;  // one, or both of a pair
  int64_t number = 0;
  bool is_line = true;
};
using EncodedBatch = std::vector<EncodedRecord>;

void refuse(ConversationResult& result, Refusal why, const std::string& place,
            const std::string& detail) {
  result.record.reset();
  result.refused = RefusedRecord{why, place, detail};
}

// What both sides have is the prompt of a pair, and not trained.
void leave_out_shared(Conversation& side, size_t num_shared) {
  for (size_t i = 0; i < num_shared; ++i)
    if (side.messages[i].at("role") == "assistant") side.messages[i]["weight"] = 0;
}

bool has_target(const EncodedConversation& encoded) {
  const auto& weights = encoded.weights;
  return weights.size() > 1 &&
         std::any_of(weights.begin() + 1, weights.end(), [](float w) { return w > 0; });
}

EncodedRecord encode_record(const RawRecord& raw, const EncodeRequest& request) {
  EncodedRecord made{.number = raw.number, .is_line = raw.is_line};
  const std::string place = record_place(request.file, raw);
  made.result = read_conversation(raw.json, place);
  if (!made.result.record) return made;
  ConversationRecord& record = *made.result.record;
  if (request.pairs && !record.rejected) {
    refuse(made.result, Refusal::kNoPair, place,
           "objective (dpo) needs chosen and rejected, and there is one answer");
    return made;
  }
  try {
    if (request.pairs) {
      for (Conversation* side : {&record.conversation, &*record.rejected}) {
        leave_out_shared(*side, record.num_shared);
        made.sides.push_back(request.encoder->encode(*side));
      }
    } else {
      made.sides.push_back(request.encoder->encode(record.conversation));
    }
  } catch (const InputError& error) {
    refuse(made.result, Refusal::kNothingToTrain, place, error.what());
    return made;
  }
  if (std::all_of(made.sides.begin(), made.sides.end(), has_target)) {
    record.conversation = {};
    record.rejected.reset();
  } else {
    refuse(made.result, Refusal::kNothingToTrain, place,
           "the template gives no token of an answer");
  }
  return made;
}

// The megabytes of the file that were read, once for each of them.
class ReadingProgress {
 public:
  explicit ReadingProgress(bool shows) : width_(shows ? terminal_width(STDERR_FILENO) : 0) {}

  void show(uint64_t done, uint64_t total) {
    constexpr uint64_t kMegabyte = 1'000'000;
    if (!bar_) bar_.emplace(std::cerr, width_, static_cast<int64_t>(total / kMegabyte) + 1, "MB");
    const auto megabytes = static_cast<int64_t>(done / kMegabyte);
    if (megabytes <= shown_) return;
    const double seconds = seconds_since(last_) / static_cast<double>(megabytes - shown_);
    shown_ = megabytes;
    last_ = std::chrono::steady_clock::now();
    bar_->advance(megabytes, seconds);
  }

 private:
  int width_;
  std::optional<ProgressBar> bar_;
  int64_t shown_ = 0;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Takes what the threads have made, in order.
class Collector {
 public:
  explicit Collector(const EncodeRequest& request)
      : file_(request.file),
        noun_(request.pairs ? "pair" : "conversation"),
        writer_(request.cache, request.vocab_size) {}

  void take(const EncodedBatch& batch) {
    for (const EncodedRecord& one : batch) {
      counts_.add(one.result);
      is_array_ = is_array_ || !one.is_line;
      if (!one.result.record) continue;
      for (const EncodedConversation& side : one.sides) {
        lost_turns_ += side.num_lost_turns;
        writer_.add(side.tokens, side.weights, static_cast<int32_t>(one.number));
      }
    }
  }

  void commit() {
    Json first;
    if (!counts_.examples().empty()) {
      const RefusedRecord& refused = counts_.examples().front();
      first = concat(refused.place, ": ", refusal_name(refused.refusal), ", ", refused.detail);
    }
    MT_CHECK_INPUT(counts_.taken() > 0, "data-path: ", file_.string(), " holds no ", noun_,
                   " that can be used", first.is_null() ? "" : "; " + first.get<std::string>());
    writer_.commit({{"taken", counts_.taken()},
                    {"refused", counts_.refused()},
                    {"summary", counts_.summary()},
                    {"first_refused", first},
                    {"lost_turns", lost_turns_},
                    {"is_array", is_array_}});
  }

 private:
  const std::filesystem::path& file_;
  const char* noun_;
  ConversationCacheWriter writer_;
  ConversationCounts counts_;
  int64_t lost_turns_ = 0;
  bool is_array_ = false;
};

}  // namespace

void encode_conversations(const EncodeRequest& request) {
  Collector collector(request);
  OrderedWorkers<EncodedBatch> workers(
      request.num_threads, kBatchesPerThread * static_cast<size_t>(request.num_threads));
  std::vector<RawRecord> waiting;
  const auto hand_over = [&] {
    if (workers.full()) collector.take(workers.take());
    workers.add([&request, records = std::exchange(waiting, {})] {
      EncodedBatch batch;
      for (const RawRecord& raw : records) batch.push_back(encode_record(raw, request));
      return batch;
    });
  };
  ReadingProgress progress(request.shows_progress);
  for_each_record(
      request.file,
      [&](RawRecord record) {
        waiting.push_back(std::move(record));
        if (waiting.size() == kBatch) hand_over();
        return true;
      },
      [&](uint64_t done, uint64_t total) { progress.show(done, total); });
  if (!waiting.empty()) hand_over();
  while (!workers.empty()) collector.take(workers.take());
  collector.commit();
}

}  // namespace moetron
