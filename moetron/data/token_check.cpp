#include "moetron/data/token_check.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/hash.h"
#include "moetron/base/json.h"
#include "moetron/base/path.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr int64_t kChunk = 256;  // sequences that a thread takes at once

// One thread's work: chunks until none is left, the time is over, or another has failed.
class Checker {
 public:
  Checker(const IndexedDataset& source, SequenceRange range, int64_t vocab_size,
          const CheckShare& share, steady_clock::time_point deadline)
      : source_(source),
        range_(range),
        vocab_size_(vocab_size),
        share_(share),
        deadline_(deadline) {}

  void work() {
    try {
      while (!stop_) {
        const int64_t chunk = next_++ * share_.num_parts + share_.part;
        const int64_t begin = range_.begin + chunk * kChunk;
        if (begin >= range_.end) return;
        for (int64_t s = begin; s < std::min(begin + kChunk, range_.end); ++s) check(s);
        if (steady_clock::now() > deadline_) stop_ = true;
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (failure_ == nullptr) failure_ = std::current_exception();
      stop_ = true;
    }
  }

  bool finish() const {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
    return !stop_;
  }

 private:
  void check(int64_t sequence) const {
    const auto token = source_.token_outside(sequence, vocab_size_);
    MT_CHECK_INPUT(!token, source_.prefix(), ".bin holds the token ", token.value_or(0),
                   " in sequence ", sequence, ", outside the vocabulary of ", vocab_size_);
  }

  const IndexedDataset& source_;
  const SequenceRange range_;
  const int64_t vocab_size_;
  const CheckShare share_;
  const steady_clock::time_point deadline_;
  std::atomic<int64_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  std::exception_ptr failure_;
};

Json description(const IndexedDataset& source, SequenceRange range, int64_t vocab_size) {
  const fs::path tokens = source.prefix() + ".bin";
  return {{"version", 1},
          {"index", source.fingerprint()},
          {"sample", source.sample_fingerprint()},
          {"bytes", fs::file_size(tokens)},
          {"written", fs::last_write_time(tokens).time_since_epoch().count()},
          {"begin", range.begin},
          {"end", range.end},
          {"vocab_size", vocab_size}};
}

fs::path note_path(const std::string& text, const fs::path& folder) {
  return folder / (hash_hex(std::as_bytes(std::span(text))) + "-checked_tokens.json");
}

}  // namespace

bool check_tokens(const IndexedDataset& source, SequenceRange range, int64_t vocab_size,
                  const CheckShare& share, std::chrono::milliseconds time) {
  Checker checker(source, range, vocab_size, share, steady_clock::now() + time);
  std::vector<std::thread> threads;
  for (int i = 1; i < share.num_threads; ++i) threads.emplace_back([&] { checker.work(); });
  checker.work();
  for (std::thread& thread : threads) thread.join();
  return checker.finish();
}

bool tokens_were_checked(const IndexedDataset& source, SequenceRange range, int64_t vocab_size,
                         const fs::path& folder) {
  if (folder.empty()) return false;
  const std::string text = description(source, range, vocab_size).dump(2) + "\n";
  const fs::path path = note_path(text, folder);
  return path_exists(path) && read_file(path) == text;
}

void note_checked_tokens(const IndexedDataset& source, SequenceRange range, int64_t vocab_size,
                         const fs::path& folder) {
  if (folder.empty()) return;
  const std::string text = description(source, range, vocab_size).dump(2) + "\n";
  std::error_code ignored;  // the write tells
  fs::create_directories(folder, ignored);
  write_file(note_path(text, folder), text);
}

}  // namespace moetron
