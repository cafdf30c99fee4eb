#include "moetron/data/conversation_cache.h"

#include <algorithm>
#include <bit>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/folder_lock.h"
#include "moetron/base/path.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 1;
constexpr const char* kFactsFile = "conversations.json";

std::string prefix(const fs::path& folder, const char* name) {
  return (folder / name).string();
}

std::string fingerprint(const IndexedDataset& data) {
  return data.fingerprint() + data.sample_fingerprint();
}

Json read_facts(const fs::path& folder) {
  Json facts = read_json(folder / kFactsFile);
  MT_CHECK_INPUT(facts.is_object() && facts.value("version", Json()) == kVersion &&
                     facts.value("files", Json()).is_object() && facts.contains("facts"),
                 (folder / kFactsFile).string(), " is not of a cache of conversations");
  return facts;
}

// A folder of its own for each writer, of this process, too.
fs::path make_folder_beside(const fs::path& folder) {
  std::string name = folder.string() + ".making.XXXXXX";
  MT_CHECK_CONFIG(::mkdtemp(name.data()) != nullptr, "cannot make a folder beside ",
                  folder.string());
  fs::permissions(name, fs::perms::owner_all | fs::perms::group_read | fs::perms::group_exec |
                            fs::perms::others_read | fs::perms::others_exec);
  return name;
}

bool is_whole(const fs::path& folder) {
  try {
    const ConversationCache cache(folder);
    return true;
  } catch (const InputError&) {
    return false;
  }
}

}  // namespace

ConversationCache::ConversationCache(const fs::path& folder)
    : facts_(read_facts(folder)),
      tokens_(prefix(folder, "tokens")),
      weights_(prefix(folder, "weights")),
      notes_(prefix(folder, "notes")) {
  const Json& files = facts_.at("files");
  const auto check = [&](const char* name, const IndexedDataset& data) {
    MT_CHECK_INPUT(files.value(name, Json()) == fingerprint(data), prefix(folder, name),
                   ".bin and .idx are not those that were written");
  };
  check("tokens", tokens_);
  check("weights", weights_);
  check("notes", notes_);
  facts_ = Json(facts_.at("facts"));
}

int32_t ConversationCache::length(int64_t conversation) const {
  return tokens_.sequence_length(conversation);
}

int32_t ConversationCache::note(int64_t conversation, int64_t which) const {
  int32_t note = 0;
  notes_.get(conversation, which, std::span(&note, 1));
  return note;
}

int32_t ConversationCache::line(int64_t conversation) const {
  return note(conversation, 0);
}

int32_t ConversationCache::first_target(int64_t conversation) const {
  return note(conversation, 1);
}

void ConversationCache::get(int64_t conversation, std::span<int32_t> tokens,
                            std::span<float> weights) const {
  MT_CHECK(tokens.size() == weights.size(), tokens.size(), " tokens and ", weights.size(),
           " weights");
  tokens_.get(conversation, 0, tokens);
  std::vector<int32_t> bits(weights.size());
  weights_.get(conversation, 0, bits);
  std::transform(bits.begin(), bits.end(), weights.begin(),
                 [](int32_t of_one) { return std::bit_cast<float>(of_one); });
}

ConversationCacheWriter::ConversationCacheWriter(const fs::path& folder, int64_t vocab_size)
    : folder_(folder),
      making_(make_folder_beside(folder)),
      tokens_(prefix(making_, "tokens"), token_type_for_vocab(vocab_size)),
      weights_(prefix(making_, "weights"), TokenType::kInt32),
      notes_(prefix(making_, "notes"), TokenType::kInt32) {}

ConversationCacheWriter::~ConversationCacheWriter() {
  std::error_code ignored;
  fs::remove_all(making_, ignored);
}

void ConversationCacheWriter::add(std::span<const int32_t> tokens, std::span<const float> weights,
                                  int32_t line) {
  MT_CHECK(tokens.size() == weights.size() && !tokens.empty(), tokens.size(), " tokens and ",
           weights.size(), " weights");
  const auto target =
      std::find_if(weights.begin() + 1, weights.end(), [](float weight) { return weight > 0; });
  MT_CHECK(target != weights.end(), "a conversation without a target");
  std::vector<int32_t> bits(weights.size());
  std::transform(weights.begin(), weights.end(), bits.begin(),
                 [](float weight) { return std::bit_cast<int32_t>(weight); });
  tokens_.add_sequence(tokens);
  weights_.add_sequence(bits);
  notes_.add_sequence(std::vector{line, static_cast<int32_t>(target - weights.begin())});
  for (IndexedDatasetWriter* file : {&tokens_, &weights_, &notes_}) file->end_document();
}

void ConversationCacheWriter::commit(const Json& facts) {
  for (IndexedDatasetWriter* file : {&tokens_, &weights_, &notes_}) file->commit();
  Json files;
  for (const char* name : {"tokens", "weights", "notes"})
    files[name] = fingerprint(IndexedDataset(prefix(making_, name)));
  const Json all{{"version", kVersion}, {"files", files}, {"facts", facts}};
  write_file(making_ / kFactsFile, all.dump(1) + "\n");
  const FolderLock lock(folder_.parent_path());
  if (path_exists(folder_)) {
    if (is_whole(folder_)) return;
    fs::remove_all(folder_);
  }
  rename_durable(making_, folder_);
}

}  // namespace moetron
