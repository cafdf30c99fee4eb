// moetron generate: continues prompts, or answers conversations, with a trained model.
#include "moetron/generate/generate.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/chat/conversation_file.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/rank_run.h"
#include "moetron/cli/text_model.h"
#include "moetron/generate/prompt.h"

namespace moetron {
namespace {

struct Prompt {
  std::string shown;  // in front of what is generated
  std::vector<int32_t> tokens;
};

std::vector<Prompt> prompts_of_texts(const GenerateOptions& options, const Tokenizer& tokenizer) {
  std::vector<Prompt> prompts;
  const std::vector<std::string> texts =
      options.prompt_file.empty() ? std::vector{options.prompt} : read_prompts(options.prompt_file);
  for (const std::string& text : texts) prompts.push_back({text, prompt_tokens(tokenizer, text)});
  return prompts;
}

// The last question of each conversation, and the tokens of all before it.
std::vector<Prompt> prompts_of_messages(const std::string& file, const ChatEncoder& encoder) {
  std::vector<Prompt> prompts;
  const auto take = [&](const ConversationRecord& record) {
    const Conversation& asked = record.conversation;
    const bool is_answered = asked.messages.back()["role"] == "assistant";
    const Json messages = is_answered ? prompt_of(asked) : asked.messages;
    prompts.push_back({concat("> ", messages.back().value("content", ""), "\n"),
                       encoder.encode_prompt(messages, asked.tools, asked.variables)});
  };
  read_conversations({file}, {}, /*strict=*/true, take, {}, ConversationUse::kAsking);
  MT_CHECK_CONFIG(!prompts.empty(), "messages: ", file, " holds no conversation");
  return prompts;
}

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// All samples of all prompts, batch by batch, in order; rank 0 prints.
void continue_prompts(TextModel& model, const std::vector<Prompt>& prompts,
                      const GenerateSettings& settings, const GenerateOptions& options,
                      bool prints) {
  const auto samples = static_cast<size_t>(options.num_samples);
  const size_t num_texts = prompts.size() * samples;
  const auto at_once = static_cast<size_t>(options.batch_size);
  for (size_t begin = 0; begin < num_texts; begin += at_once) {
    std::vector<TextToContinue> texts;
    for (size_t i = begin; i < std::min(begin + at_once, num_texts); ++i)
      texts.push_back({prompts[i / samples].tokens, i % samples, static_cast<int64_t>(i)});
    std::vector<std::string> waiting(texts.size());  // those behind the first that is not done
    std::vector<TextStream> streams;
    for (size_t i = 0; i < texts.size(); ++i) {
      waiting[i] = prompts[(begin + i) / samples].shown;
      streams.emplace_back(model.tokenizer(),
                           [&waiting, i](std::string_view text) { waiting[i] += text; });
    }
    const bool is_streamed = prints && texts.size() == 1;
    const auto hand_out = [&] { print(std::exchange(waiting[0], "")); };
    generate(model.reader(), texts, settings, [&](size_t text, int32_t token) {
      streams[text].add(token);
      if (is_streamed) hand_out();
    });
    for (size_t i = 0; i < texts.size(); ++i) {
      streams[i].finish();
      if (prints) print(waiting[i] + "\n");
      model.reader().truncate(texts[i].sequence, 0);
    }
  }
}

int generate_on_rank(const Options& options, Communicator& world, c10::Device device) {
  TextModel model(options, world, device);
  GenerateSettings settings = model.settings();
  std::vector<Prompt> prompts;
  if (options.generate.messages.empty()) {
    prompts = prompts_of_texts(options.generate, model.tokenizer());
  } else {
    const ChatEncoder encoder = model.chat_encoder();
    prompts = prompts_of_messages(options.generate.messages, encoder);
    for (const int32_t token : encoder.stop_tokens()) settings.end_tokens.push_back(token);
  }
  continue_prompts(model, prompts, settings, options.generate, world.rank() == 0);
  return kExitDone;
}

}  // namespace

int run_generate(const ParsedCommandLine& parsed) {
  const RankEnvironment environment = read_rank_environment();
  init_log(environment.rank, environment.size);
  return run_rank(parsed, environment, [&](Communicator& world, c10::Device device) {
    return generate_on_rank(parsed.options, world, device);
  });
}

}  // namespace moetron
