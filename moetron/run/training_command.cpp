#include "moetron/run/training_command.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"

namespace moetron {
namespace {

using Words = std::vector<ShellWord>;

constexpr size_t kMostWords = 5000;

std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

bool is_megatron_program(std::string_view word) {
  const std::string_view name = base_name(word);
  return name.starts_with("pretrain") && name.ends_with(".py");
}

// Ours, or a variable in its place.
bool is_our_program(const Words& words, size_t at) {
  const bool may_be = base_name(words[at].text) == "moetron" || !words[at].open.empty();
  return may_be && at + 1 < words.size() && words[at + 1].text == "pretrain";
}

// The words of a command that stands in one word, as behind "bash -c".
Words with_inner_words(const Words& words) {
  Words all;
  for (const ShellWord& word : words) {
    const bool is_command = word.text.find("pretrain") != std::string::npos &&
                            word.text.find_first_of(" \t\n") != std::string::npos;
    if (!is_command) {
      all.push_back(word);
      continue;
    }
    ShellPiece piece{.text = word.text, .splits = true};
    for (const ShellValue& inner : split_into_words({piece}))
      all.push_back({text_of(inner), {}, word.condition});
  }
  return all;
}

// Quotes that come out of a variable belong to the word; Megatron reads the numbers in '99,1,0'.
void drop_outer_quotes(Words& words) {
  for (ShellWord& word : words) {
    std::string& text = word.text;
    const bool is_quoted = text.size() >= 2 && text.front() == text.back() &&
                           (text.front() == '\'' || text.front() == '"');
    if (is_quoted) text = text.substr(1, text.size() - 2);
  }
}

// Of --name N or --name=N, where _ is as good as -.
std::optional<int64_t> launcher_number(const Words& launcher, const std::string& name,
                                       std::optional<int64_t> otherwise) {
  std::optional<int64_t> number = otherwise;
  for (size_t i = 0; i < launcher.size(); ++i) {
    std::string word = launcher[i].text;
    std::string value;
    if (const size_t equals = word.find('='); equals != std::string::npos) {
      value = word.substr(equals + 1);
      word.resize(equals);
    } else if (i + 1 < launcher.size()) {
      value = launcher[i + 1].text;
    }
    std::replace(word.begin(), word.end(), '-', '_');
    if (word != name) continue;
    number = parse_number<int64_t>(value);
    if (number && *number <= 0) number.reset();
  }
  return number;
}

std::optional<TrainingCommand> command_in(const Words& given) {
  const Words words = with_inner_words(given);
  for (size_t i = 0; i < words.size(); ++i) {
    const bool is_ours = is_our_program(words, i);
    if (!is_ours && !is_megatron_program(words[i].text)) continue;
    TrainingCommand command;
    command.program = is_ours ? "moetron" : base_name(words[i].text);
    const auto at = words.begin() + static_cast<std::ptrdiff_t>(i);
    command.arguments.assign(at + (is_ours ? 2 : 1), words.end());
    const auto launcher = std::find_if(words.begin(), at, [](const ShellWord& word) {
      const std::string_view name = base_name(word.text);
      return name == "torchrun" || word.text.starts_with("torch.distributed.");
    });
    command.launcher.assign(launcher, at);
    if (launcher == at) return command;
    const auto ranks = launcher_number(command.launcher, "__nproc_per_node", 1);
    const auto nodes = launcher_number(command.launcher, "__nnodes", 1);
    int64_t product = 0;
    if (ranks && nodes && !__builtin_mul_overflow(*ranks, *nodes, &product))
      command.num_ranks = product;
    return command;
  }
  return {};
}

TrainingCommand checked(TrainingCommand command, const std::string& name) {
  MT_CHECK_INPUT(command.arguments.size() <= kMostWords, name, ": the command has ",
                 command.arguments.size(), " words, more than ", kMostWords);
  drop_outer_quotes(command.arguments);
  return command;
}

}  // namespace

TrainingCommand find_training_command(std::string_view text, const std::string& name,
                                      ShellContext context) {
  const std::vector<ShellCommand> commands = read_shell_script(text, name, std::move(context));
  for (auto command = commands.rbegin(); command != commands.rend(); ++command)
    if (auto found = command_in(command->words)) return checked(std::move(*found), name);
  const bool is_list = !commands.empty() && commands.front().words.front().text.starts_with("--");
  MT_CHECK_INPUT(is_list, name,
                 " holds no command that trains: neither pretrain_*.py nor moetron pretrain with "
                 "arguments, nor a list of options");
  TrainingCommand list;
  for (const ShellCommand& command : commands)
    list.arguments.insert(list.arguments.end(), command.words.begin(), command.words.end());
  return checked(std::move(list), name);
}

TrainingCommand training_command_of(const std::vector<std::string>& words) {
  Words given;
  for (const std::string& word : words) given.push_back({.text = word});
  if (auto found = command_in(given)) return checked(std::move(*found), "the command line");
  return checked({.program = {}, .arguments = std::move(given), .launcher = {}, .num_ranks = {}},
                 "the command line");
}

}  // namespace moetron
