#include "moetron/cli/text_model.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/checkpoint/stored_weights.h"
#include "moetron/generate/prompt.h"
#include "moetron/run/resolve.h"
#include "moetron/train/run_settings.h"
#include "moetron/train/start.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// --load itself, or the checkpoint that is meant in it; of a model or of an adapter.
fs::path loaded_folder(const StartSpec& start, Communicator& world) {
  const fs::path load = start.load;
  const Verify verify = verification(start.verify);
  const auto iteration = megatron_iteration(load, start.step);
  if (start.step && !iteration) return find_step(load, *start.step, &world, verify).folder;
  if (!iteration && !path_exists(load / kConfigFile) && !holds_adapter(load)) {
    if (const auto found = find_latest(load, &world, verify)) return found->folder;
  }
  if (!holds_adapter(load)) check_holds_model(load);
  check_model_files(load, &world, verify, iteration);
  return load;
}

std::shared_ptr<const Tokenizer> model_tokenizer(const Options& options, const fs::path& folder) {
  if (auto tokenizer = open_tokenizer(resolve_start(options).tokenizer)) return tokenizer;
  if (!Tokenizer::find(folder).empty()) return Tokenizer::load(folder);
  throw ConfigError(concat("tokenizer-model: ", folder.string(),
                           " holds no tokenizer; name one, or --tokenizer bytes"));
}

// --chat-template, else the adapter's or the model's own.
std::shared_ptr<const ChatTemplate> chat_template(const std::string& choice, const fs::path& loaded,
                                                  const fs::path& folder) {
  if (choice.empty()) {
    const auto own = ChatTemplate::find(loaded);
    return own != nullptr ? own : ChatTemplate::load(folder);
  }
  return ChatTemplate::named(choice, folder);
}

// Of a model that was fine-tuned here: it has seen no other prompts.
ThinkingChoice trained_thinking(const fs::path& loaded) {
  const fs::path file = loaded / kTrainerFile;
  if (!path_exists(file)) return ThinkingChoice::kTemplate;
  const Json trainer = read_json(file);
  const Json::json_pointer place("/options/sft/thinking");
  const Json said = trainer.is_object() && trainer.contains(place) ? trainer.at(place) : Json();
  return said == "on"    ? ThinkingChoice::kOn
         : said == "off" ? ThinkingChoice::kOff
                         : ThinkingChoice::kTemplate;
}

GenerateSettings generate_settings(const Options& options) {
  const GenerateOptions& given = options.generate;
  return {.max_new_tokens = given.max_new_tokens,
          .sampling = {.greedy = given.greedy,
                       .repetition_penalty = given.repetition_penalty,
                       .temperature = given.temperature,
                       .top_k = given.top_k,
                       .top_p = given.top_p},
          .seed = static_cast<uint64_t>(options.runtime.seed)};
}

// What the arguments of Megatron's files tell, where there is no config.json.
StoredModel stored_model(const fs::path& folder, const StartSpec& start) {
  StoredModel stored = describe_stored(folder, {}, {}, megatron_iteration(folder, start.step));
  MT_CHECK_INPUT(stored.config || path_exists(folder / kConfigFile), "load: ", folder.string(),
                 " has no config.json, and Megatron's args do not tell the model: put the model's "
                 "config.json there");
  return stored;
}

RunFacts facts_of(const fs::path& folder, const StoredModel& stored, int64_t world_size) {
  RunFacts facts{.world_size = world_size, .model_folder = folder};
  if (auto taken = taken_model(folder, stored))
    facts.told_model = {std::move(taken->config), std::move(taken->place)};
  return facts;
}

}  // namespace

// Any schedule takes so many micro-batches; a text is read in one, forwards alone.
TextModel::TextModel(const Options& options, Communicator& world, c10::Device device)
    : loaded_(loaded_folder(resolve_start(options), world)),
      folder_(holds_adapter(loaded_) ? base_of_adapter(loaded_, options.tuning.base) : loaded_),
      stored_(stored_model(folder_, resolve_start(options))),
      chat_template_(options.sft.chat_template),
      thinking_(options.sft.thinking),
      tokenizer_(model_tokenizer(options, folder_)),
      spec_(
          resolve_layout(options, facts_of(folder_, stored_, world.size()),
                         /*num_micro_batches=*/2 * options.parallel.pipeline_model_parallel_size)),
      mesh_(std::make_unique<Mesh>(world, spec_.sizes, head_copies(spec_.sizes, spec_.model),
                                   holds_adapter(loaded_))),
      settings_(generate_settings(options)) {
  settings_.end_tokens = end_tokens(folder_, *tokenizer_);
  ModelSettings settings = model_settings(spec_, *mesh_, device);
  settings.micro_batch_tokens = 0;  // prompts are as long as they are
  settings.lora.reset();
  if (holds_adapter(loaded_)) settings.lora = read_adapter_config(loaded_, spec_.model).lora;
  model_ = std::make_unique<Model>(spec_.model, settings);
  load_weights(folder_, model_->weights(), &world, stored_);
  if (settings.lora) load_adapter(loaded_, model_->adapter_weights(), &world);
  reader_ = std::make_unique<TextReader>(*model_, *mesh_, spec_.pipeline);
}

ChatEncoder TextModel::chat_encoder() const {
  EncodeSettings settings;
  settings.thinking =
      thinking_ == ThinkingChoice::kTemplate ? trained_thinking(loaded_) : thinking_;
  return {chat_template(chat_template_, loaded_, folder_), tokenizer_, settings};
}

void TextStream::add(int32_t token) {
  tokens_.push_back(token);
  const std::string all = text();
  if (!all.ends_with("\xEF\xBF\xBD")) hand_on(all);  // U+FFFD: more bytes may complete it
}

void TextStream::finish() {
  hand_on(text());
}

std::string TextStream::text() const {
  return tokenizer_.decode(tokens_, /*skip_special_tokens=*/true);
}

void TextStream::hand_on(const std::string& text) {
  if (text.size() > handed_on_) take_(std::string_view(text).substr(handed_on_));
  handed_on_ = std::max(handed_on_, text.size());
}

}  // namespace moetron
