#include "moetron/cli/sample_answers.h"

#include <algorithm>
#include <cstdio>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/cli/text_model.h"
#include "moetron/comm/communicator.h"

namespace moetron {
namespace {

constexpr int64_t kLongestAnswer = 200;  // tokens
constexpr size_t kLongestPrompt = 600;   // bytes that are shown of one, the last ones

std::string without_edges(std::string text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
  while (!text.empty() && is_space(text.back())) text.pop_back();
  while (!text.empty() && is_space(text.front())) text.erase(0, 1);
  return text;
}

void answer(TextModel& model, const SampleQuestion& question, bool prints) {
  const Tokenizer& tokenizer = model.tokenizer();
  const auto room = model.longest_text() - static_cast<int64_t>(question.prompt.size());
  if (room < 1) return;
  GenerateSettings settings = model.settings();
  settings.max_new_tokens = std::min(room, kLongestAnswer);
  settings.sampling = {.greedy = true};
  settings.end_tokens.push_back(question.answer.back());  // what ends a turn of this template
  const auto tokens = generate(model.reader(), {{question.prompt}}, settings).front();
  model.reader().truncate(0, 0);
  if (!prints) return;
  std::string prompt = without_edges(tokenizer.decode(question.prompt));
  if (prompt.size() > kLongestPrompt)
    prompt = "..." + prompt.substr(prompt.size() - kLongestPrompt);
  std::printf(
      "\nprompt    %s\nanswer    %s\nin data   %s\n", prompt.c_str(),
      without_edges(tokenizer.decode(tokens, /*skip_special_tokens=*/true)).c_str(),
      without_edges(tokenizer.decode(question.answer, /*skip_special_tokens=*/true)).c_str());
}

void answer_all(const Options& options, const std::vector<SampleQuestion>& questions,
                Communicator& world, c10::Device device) {
  const auto count = std::min(questions.size(), static_cast<size_t>(options.sft.sample_answers));
  if (count == 0) return;
  Options saved = options;
  saved.checkpoint.load = options.checkpoint.save;
  saved.checkpoint.ckpt_step.reset();
  TextModel model(saved, world, device);
  for (size_t i = 0; i < count; ++i) answer(model, questions[i], world.rank() == 0);
}

}  // namespace

void show_sample_answers(const Options& options, const std::vector<SampleQuestion>& questions,
                         Communicator& world, c10::Device device) {
  try {
    const PhaseScope phase(world, "sample answers");
    answer_all(options, questions, world, device);
  } catch (const std::exception& error) {
    world.abort(first_line(error));  // nobody waits for this rank
    log_warning(concat("no sample answers: ", first_line(error)));
  }
  if (world.world_rank() != 0) return;
  std::printf("\nto talk to it: moetron chat --load %s\n", options.checkpoint.save.c_str());
  std::fflush(stdout);
}

}  // namespace moetron
