#include "moetron/cli/sample_answers.h"

#include <algorithm>
#include <cstdio>

#include <ATen/ATen.h>

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/generate/generate.h"
#include "moetron/generate/prompt.h"
#include "moetron/models/model.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongestAnswer = 200;  // tokens
constexpr size_t kLongestPrompt = 600;   // bytes that are shown of one, the last ones

std::string without_edges(std::string text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
  while (!text.empty() && is_space(text.back())) text.pop_back();
  while (!text.empty() && is_space(text.front())) text.erase(0, 1);
  return text;
}

void answer(Model& model, const Tokenizer& tokenizer, const SampleQuestion& question,
            std::vector<int32_t> ends) {
  ends.push_back(question.answer.back());  // what ends a turn of this template
  const auto room =
      model.config().max_position_embeddings - static_cast<int64_t>(question.prompt.size());
  if (room < 1) return;
  GenerateSettings settings;
  settings.max_new_tokens = std::min(room, kLongestAnswer);
  settings.greedy = true;
  settings.end_tokens = ends;
  const std::vector<int32_t> tokens = generate(model, question.prompt, settings);
  std::string prompt = without_edges(tokenizer.decode(question.prompt));
  if (prompt.size() > kLongestPrompt)
    prompt = "..." + prompt.substr(prompt.size() - kLongestPrompt);
  std::printf(
      "\nprompt    %s\nanswer    %s\nin data   %s\n", prompt.c_str(),
      without_edges(tokenizer.decode(tokens, /*skip_special_tokens=*/true)).c_str(),
      without_edges(tokenizer.decode(question.answer, /*skip_special_tokens=*/true)).c_str());
}

void answer_all(const Options& options, const std::vector<SampleQuestion>& questions,
                c10::Device device) {
  const auto count = std::min(questions.size(), static_cast<size_t>(options.sft.sample_answers));
  if (count == 0) return;
  const std::vector<int64_t> steps = list_steps(options.checkpoint.save);
  if (steps.empty()) return;
  const fs::path folder = checkpoint_folder(options.checkpoint.save, steps.front());
  const auto tokenizer = Tokenizer::load(folder);
  ModelSettings settings;
  const auto dtype = device.is_cpu() ? at::kFloat : at::kBFloat16;
  settings.options = at::TensorOptions(dtype).device(device);
  Model model(read_model_config(folder), settings);
  load_weights(folder, model.weights());
  const std::vector<int32_t> ends = end_tokens(folder, *tokenizer);
  for (size_t i = 0; i < count; ++i) answer(model, *tokenizer, questions[i], ends);
}

}  // namespace

void show_sample_answers(const Options& options, const std::vector<SampleQuestion>& questions,
                         c10::Device device) {
  try {
    answer_all(options, questions, device);
  } catch (const std::exception& error) {
    log_warning(concat("no sample answers: ", first_line(error)));
  }
  std::printf("\nto talk to it: moetron chat --load %s\n", options.checkpoint.save.c_str());
  std::fflush(stdout);
}

}  // namespace moetron
