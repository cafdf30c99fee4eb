// moetron generate: continues a prompt with a Hugging Face directory's model.
#include "moetron/generate/generate.h"

#include <cstdio>
#include <string>
#include <vector>

#include <ATen/Parallel.h>

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/checkpoint/stored_weights.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/device.h"
#include "moetron/generate/prompt.h"
#include "moetron/models/model.h"
#include "moetron/run/resolve.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/train/start.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// --load itself, or the newest checkpoint in it; of a model or of an adapter.
fs::path loaded_folder(const fs::path& load, Verify verify) {
  if (!path_exists(load / kConfigFile) && !holds_adapter(load)) {
    if (const auto found = find_latest(load, nullptr, verify)) return found->folder;
  }
  if (!holds_adapter(load)) check_tells_model(load);
  check_model_files(load, nullptr, verify);
  return load;
}

std::shared_ptr<const Tokenizer> model_tokenizer(const Options& options, const fs::path& folder) {
  if (auto tokenizer = open_tokenizer(resolve_start(options).tokenizer)) return tokenizer;
  if (path_exists(folder / "tokenizer.json")) return Tokenizer::load(folder);
  throw ConfigError(concat("tokenizer-model: ", folder.string(),
                           " holds no tokenizer.json; name a folder, or --tokenizer bytes"));
}

// Prints new text as it comes, holding back the bytes of a character that is not complete yet.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void add(int32_t token) {
    tokens_.push_back(token);
    const std::string text = tokenizer_.decode(tokens_, /*skip_special_tokens=*/true);
    const std::string kReplacement = "\xEF\xBF\xBD";
    if (text.ends_with(kReplacement)) return;
    print(text);
  }
  void finish() { print(tokenizer_.decode(tokens_, /*skip_special_tokens=*/true)); }

 private:
  void print(const std::string& text) {
    if (text.size() > printed_)
      std::fwrite(text.data() + printed_, 1, text.size() - printed_, stdout);
    printed_ = std::max(printed_, text.size());
    std::fflush(stdout);
  }

  const Tokenizer& tokenizer_;
  std::vector<int32_t> tokens_;
  size_t printed_ = 0;
};

void continue_prompt(Model& model, const Tokenizer& tokenizer, const std::string& prompt,
                     const std::vector<int32_t>& ends, const Options& options) {
  GenerateSettings settings;
  settings.max_new_tokens = options.generate.max_new_tokens;
  settings.greedy = options.generate.greedy;
  settings.temperature = options.generate.temperature;
  settings.top_p = options.generate.top_p;
  settings.seed = static_cast<uint64_t>(options.runtime.seed);
  settings.end_tokens = ends;

  const std::vector<int32_t> tokens = prompt_tokens(tokenizer, prompt);
  TextStream stream(tokenizer);
  bool has_begun = false;
  generate(model, tokens, settings, [&](int32_t token) {
    if (!has_begun) std::fputs(prompt.c_str(), stdout);  // not before the prompt was accepted
    has_begun = true;
    stream.add(token);
  });
  stream.finish();
  std::fputs("\n", stdout);
}

}  // namespace

int run_generate(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  say_notices(parsed);
  validate(options, Command::kGenerate, /*world_size=*/1);
  if (options.runtime.num_threads > 0)
    at::set_num_threads(static_cast<int>(options.runtime.num_threads));
  const c10::Device device = choose_device(options.runtime.device, /*local_rank=*/0);
  const fs::path loaded =
      loaded_folder(options.checkpoint.load, verification(resolve_start(options).verify));
  const bool is_adapter = holds_adapter(loaded);
  const fs::path folder = is_adapter ? base_of_adapter(loaded, options.tuning.base) : loaded;
  const auto tokenizer = model_tokenizer(options, folder);
  const ModelConfig config = read_model_config(folder);
  const std::vector<std::string> prompts = options.generate.prompt_file.empty()
                                               ? std::vector{options.generate.prompt}
                                               : read_prompts(options.generate.prompt_file);
  const std::vector<int32_t> ends = end_tokens(folder, *tokenizer);
  ModelSettings settings;
  settings.options = at::TensorOptions(at::kFloat).device(device);
  if (is_adapter) settings.lora = read_adapter_config(loaded, config).lora;
  Model model(config, settings);
  load_weights(folder, model.weights());
  if (is_adapter) load_adapter(loaded, model.adapter_weights());

  for (const std::string& prompt : prompts)
    continue_prompt(model, *tokenizer, prompt, ends, options);
  return kExitDone;
}

}  // namespace moetron
