#include "moetron/cli/sample_answers.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/cli/text_model.h"
#include "moetron/comm/communicator.h"
#include "moetron/generate/generate.h"
#include "moetron/generate/reader.h"
#include "moetron/tokenizer/tokenizer.h"

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

// Nothing where the prompt leaves no room in `longest` tokens.
std::optional<SampleAnswer> answer(TextReader& reader, const Tokenizer& tokenizer,
                                   const SampleQuestion& question, GenerateSettings settings,
                                   int64_t longest) {
  const auto room = longest - static_cast<int64_t>(question.prompt.size());
  if (room < 1) return std::nullopt;
  settings.max_new_tokens = std::min(room, kLongestAnswer);
  settings.sampling = {.greedy = true};
  settings.end_tokens.push_back(question.answer.back());  // what ends a turn of this template
  const auto tokens = generate(reader, {{question.prompt}}, settings).front();
  reader.truncate(0, 0);
  const auto text = [&](const std::vector<int32_t>& of) {
    return without_edges(tokenizer.decode(of, /*skip_special_tokens=*/true));
  };
  return SampleAnswer{without_edges(tokenizer.decode(question.prompt)), text(tokens),
                      text(question.answer)};
}

class RunningSampler final : public AnswerSampler {
 public:
  RunningSampler(Model& model, Mesh& mesh, const RunSpec& spec, const Tokenizer& tokenizer,
                 std::vector<SampleQuestion> questions)
      : tokenizer_(tokenizer),
        questions_(std::move(questions)),
        longest_(std::min(spec.model.max_position_embeddings, spec.batch.seq_length)),
        reader_(model, mesh, spec.pipeline) {}

  std::vector<SampleAnswer> answer() override {
    reader_.weights_changed();
    std::vector<SampleAnswer> answers;
    for (const SampleQuestion& question : questions_) {
      if (auto one = moetron::answer(reader_, tokenizer_, question, {}, longest_))
        answers.push_back(std::move(*one));
    }
    reader_.weights_changed();  // what was read needs its memory no more
    return answers;
  }

 private:
  const Tokenizer& tokenizer_;
  const std::vector<SampleQuestion> questions_;
  const int64_t longest_;  // text, in tokens: experts' buffers are made for a micro-batch
  TextReader reader_;
};

void print(const SampleAnswer& sample) {
  std::string prompt = sample.prompt;
  if (prompt.size() > kLongestPrompt)
    prompt = "..." + prompt.substr(prompt.size() - kLongestPrompt);
  std::printf("\nprompt    %s\nanswer    %s\nin data   %s\n", prompt.c_str(), sample.answer.c_str(),
              sample.in_data.c_str());
}

std::vector<SampleQuestion> first_of(const std::vector<SampleQuestion>& questions, int64_t count) {
  const auto most = std::min(questions.size(), static_cast<size_t>(count));
  return {questions.begin(), questions.begin() + static_cast<std::ptrdiff_t>(most)};
}

void answer_all(const Options& options, const std::vector<SampleQuestion>& questions,
                Communicator& world, c10::Device device) {
  const auto asked = first_of(questions, options.sft.sample_answers);
  if (asked.empty()) return;
  Options saved = options;
  saved.checkpoint.load = options.checkpoint.save;
  saved.checkpoint.ckpt_step.reset();
  TextModel model(saved, world, device);
  for (const SampleQuestion& question : asked) {
    const auto sample =
        answer(model.reader(), model.tokenizer(), question, model.settings(), model.longest_text());
    if (sample && world.rank() == 0) print(*sample);
  }
}

}  // namespace

std::unique_ptr<AnswerSampler> sample_answers_of(Model& model, Mesh& mesh, const RunSpec& spec,
                                                 const Tokenizer& tokenizer,
                                                 const std::vector<SampleQuestion>& questions,
                                                 int64_t count) {
  return std::make_unique<RunningSampler>(model, mesh, spec, tokenizer, first_of(questions, count));
}

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
