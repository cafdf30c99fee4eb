#include <algorithm>
#include <cstdlib>
#include <span>

#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/hash.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/chat/encode.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/data/blend.h"
#include "moetron/data/conversation_cache.h"
#include "moetron/data/pack_order.h"
#include "moetron/run/resolve.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/train/conversations.h"
#include "moetron/train/encode_conversations.h"
#include "moetron/train/long_work.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTemplateFile = "chat_template.jinja";

// The one that is named joins the tokenizer's files.
std::shared_ptr<const ChatTemplate> open_template(const std::string& asked, RunStart& start) {
  if (asked.empty()) {
    if (auto own = ChatTemplate::find(start.tokenizer_folder)) return own;
    throw ConfigError(concat("chat-template: ", start.tokenizer_folder.string(),
                             " has none; name a file, or chatml: --chat-template FILE|chatml"));
  }
  auto made = ChatTemplate::named(asked, start.tokenizer_folder);
  std::erase_if(start.tokenizer_files,
                [](const CompanionFile& file) { return file.name == kTemplateFile; });
  start.tokenizer_files.push_back({kTemplateFile, made->text()});
  return made;
}

EncodeSettings encode_settings(const ConversationsSpec& spec) {
  EncodeSettings settings;
  settings.last_turn_only = spec.last_turn_only;
  settings.thinking = spec.thinking;
  settings.allow_special_tokens_in_text = spec.allow_special_tokens_in_text;
  return settings;
}

std::string hash_of(const std::string& text) {
  return hash_hex(std::as_bytes(std::span(text)));
}

bool can_write(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return !error && ::access(folder.c_str(), W_OK) == 0;
}

// --data-cache-path, else a folder beside the data, else the user's cache.
fs::path cache_folder(const std::string& asked, const fs::path& file) {
  if (!asked.empty()) {
    MT_CHECK_CONFIG(can_write(asked), "data-cache-path: cannot write to ", asked);
    return asked;
  }
  const fs::path beside = file.parent_path() / ".moetron_cache";
  if (can_write(beside)) return beside;
  const char* own = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path cache = own != nullptr && *own != 0
                             ? fs::path(own) / "moetron"
                             : fs::path(home == nullptr ? "." : home) / ".cache" / "moetron";
  MT_CHECK_CONFIG(can_write(cache), "data-cache-path: neither ", beside.string(), " nor ",
                  cache.string(), " can be written to; name a folder");
  return cache;
}

// Everything that decides what the tokens are.
struct Encoding {
  std::shared_ptr<const ChatEncoder> encoder;
  std::shared_ptr<const Tokenizer> tokenizer;
  bool pairs = false;
  std::string key;
};

Encoding make_encoding(const ConversationsSpec& spec, RunStart& start) {
  MT_CHECK_CONFIG(start.tokenizer != nullptr,
                  "sft needs a tokenizer: load holds none; name --tokenizer-model");
  auto chat_template = open_template(spec.chat_template, start);
  Encoding encoding;
  encoding.tokenizer = start.tokenizer;
  encoding.pairs = spec.pairs;
  encoding.encoder =
      std::make_shared<ChatEncoder>(chat_template, start.tokenizer, encode_settings(spec));
  std::string all = encoding.encoder->fingerprint_text();
  for (const CompanionFile& file : start.tokenizer_files) all += concat(file.name, file.text, "\n");
  if (spec.pairs) all += "pairs\n";
  encoding.key = hash_of(all + concat(start.tokenizer->vocab_size()));
  return encoding;
}

// Rank 0's place and key of the cache, for all.
fs::path agree_on_cache(const std::string& asked, const fs::path& file, const Encoding& encoding,
                        Communicator* world) {
  std::string mine;
  on_rank_zero(world, [&] {
    MT_CHECK_INPUT(path_exists(file), "data-path: there is no file ", file.string());
    const MappedFile data(file);
    const std::string key = hash_of(hash_hex(data.bytes()) + encoding.key).substr(0, 16);
    mine = (cache_folder(asked, fs::absolute(file)) / (file.stem().string() + "-" + key)).string();
    return 0;
  });
  return world == nullptr ? mine : gather_texts(*world, mine)[0];
}

std::shared_ptr<const ConversationCache> open_cache(const fs::path& file, const fs::path& cache,
                                                    const Encoding& encoding, Communicator* world) {
  const int64_t is_there = on_rank_zero(world, [&]() -> int64_t {
    if (!path_exists(cache)) return 0;
    try {
      const ConversationCache found(cache);
      return 1;
    } catch (const InputError& error) {
      log_info(concat("data-cache-path: made anew, for it is damaged: ", error.what()));
      return 0;
    }
  });
  if (is_there == 0) {
    on_rank_zero_for_long(world, [&] {
      encode_conversations({.file = file,
                            .cache = cache,
                            .encoder = encoding.encoder,
                            .pairs = encoding.pairs,
                            .vocab_size = encoding.tokenizer->vocab_size(),
                            .num_threads = std::max(1, at::get_num_threads()),
                            .shows_progress = true});
    });
  }
  std::shared_ptr<const ConversationCache> opened;
  on_all_ranks(world, [&] {
    MT_CHECK_CONFIG(path_exists(cache), "data-cache-path: ", cache.string(),
                    ", which rank 0 has made, is not on the disk of another rank: name a folder "
                    "that all of them see");
    opened = std::make_shared<ConversationCache>(cache);
    return 0;
  });
  return opened;
}

void tell(const ConversationCache& cache, const fs::path& file, bool is_strict) {
  const Json& facts = cache.facts();
  const auto refused = facts.at("refused").get<int64_t>();
  MT_CHECK_INPUT(!is_strict || refused == 0,
                 "strict: ", refused == 0 ? "" : facts.at("first_refused").get<std::string>());
  log_info(concat(file.string(), ": ", facts.at("summary").get<std::string>()));
  if (const auto lost = facts.at("lost_turns").get<int64_t>(); lost > 0)
    log_info(concat(lost, " answers are not trained: the template writes them otherwise later"));
}

PackFacts count_packs(const ConversationSet& set, const SftChoices& choices, int64_t world_size) {
  const ConversationsSpec spec = choices.conversations();
  const auto seed = static_cast<uint64_t>(choices.seed());
  const auto split = split_conversations(set, {.seed = seed,
                                               .eval_fraction = spec.eval_fraction,
                                               .sequence_length = choices.seq_length(),
                                               .truncates = spec.truncate});
  PackFacts facts{.world_size = world_size};
  if (split.training.empty()) return facts;  // refused where all is known
  const PackSettings settings{.sequence_length = choices.seq_length(),
                              .packs = spec.packing,
                              .num_sides = set.num_sides(),
                              .window = spec.window,
                              .seed = seed};
  PackOrder order(set, split, settings);
  order.extend_to_epochs(std::max<int64_t>(1, choices.epochs()));
  facts.first_epoch = order.epoch_end(0);
  facts.all_epochs = order.packs().size();
  facts.held_out = epoch_packs(split.held_out, split.lengths, settings, 0).size();
  return facts;
}

}  // namespace

std::unique_ptr<const Conversations> open_conversations(const Options& options, RunStart& start,
                                                        Communicator* world, int64_t world_size) {
  const auto spec = resolve_conversations(options);
  if (!spec) return nullptr;
  const DataSpec data = resolve_data(options);
  std::optional<PhaseScope> phase;
  if (world != nullptr) phase.emplace(*world, "opening the conversations");
  SftChoices choices(options);
  Encoding encoding;
  on_all_ranks(world, [&] {
    encoding = make_encoding(*spec, start);
    return 0;
  });
  const DataBlend blend = parse_blend(data.path);
  std::vector<ConversationFile> files;
  std::vector<DescribedFile> described;
  fs::path caches;  // of the first file, and what belongs to all
  for (size_t i = 0; i < blend.prefixes.size(); ++i) {
    const fs::path file = blend.prefixes[i];
    const fs::path folder = agree_on_cache(data.cache_path, file, encoding, world);
    if (i == 0) caches = folder.parent_path();
    const auto cache = open_cache(file, folder, encoding, world);
    on_rank_zero(world, [&] {
      tell(*cache, file, spec->strict);
      return 0;
    });
    files.push_back({cache, blend.weights.empty() ? 0 : blend.weights[i]});
    const std::string name = folder.filename().string();
    described.push_back(
        {file.string(),
         concat(cache->size(), spec->pairs ? " answers, " : " conversations, ", cache->num_tokens(),
                " tokens, key ", name.substr(name.rfind('-') + 1),
                blend.weights.empty() ? "" : concat(", weight ", blend.weights[i]))});
  }
  auto set = std::make_shared<const ConversationSet>(std::move(files), spec->pairs);
  const auto told = taken_model(start.weights, start.stored);
  std::optional<int64_t> max_positions;  // unknown where options describe the model
  if (told)
    max_positions = told->config.max_position_embeddings;
  else if (path_exists(start.model_folder() / kConfigFile))
    max_positions = read_model_config(start.model_folder()).max_position_embeddings;
  choices.see_conversations(
      {.num_conversations = set->size(),
       .longest = *std::max_element(set->lengths().begin(), set->lengths().end()),
       .max_positions = max_positions});
  choices.see_packs(count_packs(*set, choices, world_size));
  return std::make_unique<const Conversations>(std::move(set), std::move(described),
                                               std::move(caches), std::move(choices),
                                               encoding.tokenizer);
}

}  // namespace moetron
