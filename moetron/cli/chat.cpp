// moetron chat: a conversation with a trained model on the terminal.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/rank_run.h"
#include "moetron/cli/text_model.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr const char* kHelp =
    "/clear begins a new conversation, /system TEXT one with other instructions (or none), /exit "
    "ends.\n";

// What the user says, which rank 0 reads and all ranks get.
class Input {
 public:
  explicit Input(Communicator& world) : world_(world) {}

  bool is_terminal() const { return ::isatty(STDIN_FILENO) == 1; }
  // Nothing: the user has left.
  std::optional<std::string> next() {
    std::string line;  // "+" in front of what was said; empty: nothing was
    if (world_.rank() == 0) {
      if (is_terminal()) print("\nyou: ");
      if (std::string said; std::getline(std::cin, said)) line = "+" + said;
    }
    if (world_.size() > 1) line = gather_texts(world_, line).front();
    if (line.empty()) return std::nullopt;
    return line.substr(1);
  }
  void print(std::string_view text) const {
    if (world_.rank() != 0) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

 private:
  Communicator& world_;
};

class Chat {
 public:
  Chat(const Options& options, Communicator& world, c10::Device device)
      : model_(options, world, device),
        encoder_(model_.chat_encoder()),
        settings_(model_.settings()),
        input_(world),
        system_(options.generate.system) {
    for (const int32_t token : encoder_.stop_tokens()) settings_.end_tokens.push_back(token);
    begin_anew();
  }

  int run() {
    if (input_.is_terminal()) input_.print(kHelp);
    while (const auto line = input_.next()) {
      if (*line == "/exit") break;
      if (line->starts_with("/")) {
        obey(*line);
      } else if (!line->empty()) {
        answer(*line);
      }
    }
    if (input_.is_terminal()) input_.print("\n");
    return kExitDone;
  }

 private:
  void begin_anew() {
    messages_ = Json::array();
    if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
  }

  void obey(const std::string& command) {
    const std::string kSystem = "/system ";
    if (command.starts_with(kSystem) || command + " " == kSystem) {
      const std::string text = command.substr(std::min(kSystem.size(), command.size()));
      if (!is_utf8(text)) return input_.print("this is no text in UTF-8, and was not taken\n");
      system_ = text;
      begin_anew();
    } else if (command == "/clear") {
      begin_anew();
    } else {
      input_.print(concat(command == "/help" ? "" : "there is no " + command + ": ", kHelp));
    }
  }

  // What cannot be answered is taken back: the conversation goes on without it.
  void answer(const std::string& said) {
    if (!is_utf8(said)) return input_.print("this is no text in UTF-8, and was not sent\n");
    messages_.push_back({{"role", "user"}, {"content", said}});
    try {
      const std::vector<int32_t> prompt = encoder_.encode_prompt(messages_);
      const auto length = static_cast<int64_t>(prompt.size());
      if (length >= model_.longest_text())
        return refuse(concat("the conversation (", length,
                             " tokens) is longer than the model reads (", model_.longest_text(),
                             "): /clear begins a new one"));
      const std::string text = continued(prompt);
      messages_.push_back({{"role", "assistant"}, {"content", text}});
      ++num_answers_;
    } catch (const TemplateError& error) {
      refuse(error.what());
    }
  }
  void refuse(const std::string& why) {
    messages_.erase(messages_.size() - 1);
    input_.print(why + "\n");
  }

  std::string continued(const std::vector<int32_t>& prompt) {
    const auto length = static_cast<int64_t>(prompt.size());
    GenerateSettings settings = settings_;
    settings.max_new_tokens = std::min(settings.max_new_tokens, model_.longest_text() - length);
    // What was read before stays read as far as the template writes the same again.
    const auto same = std::ranges::mismatch(read_, prompt).in1 - read_.begin();
    model_.reader().truncate(kSequence, std::min<int64_t>(same, length - 1));
    TextStream stream(model_.tokenizer(), [&](std::string_view text) { input_.print(text); });
    if (input_.is_terminal()) input_.print("model: ");
    const auto add = [&](size_t, int32_t token) { stream.add(token); };
    const auto sample = static_cast<uint64_t>(num_answers_);
    const auto tokens = generate(model_.reader(), {{prompt, sample, kSequence}}, settings, add);
    stream.finish();
    input_.print("\n");
    read_ = prompt;
    read_.insert(read_.end(), tokens.front().begin(), tokens.front().end());
    read_.resize(static_cast<size_t>(model_.reader().length(kSequence)));
    return stream.text();
  }

  static constexpr int64_t kSequence = 0;

  TextModel model_;
  ChatEncoder encoder_;
  GenerateSettings settings_;
  Input input_;
  std::string system_;
  Json messages_;
  std::vector<int32_t> read_;  // what the reader knows of the conversation
  int64_t num_answers_ = 0;
};

}  // namespace

int run_chat(const ParsedCommandLine& parsed) {
  const RankEnvironment environment = read_rank_environment();
  init_log(environment.rank, environment.size);
  return run_rank(parsed, environment, [&](Communicator& world, c10::Device device) {
    return Chat(parsed.options, world, device).run();
  });
}

}  // namespace moetron
