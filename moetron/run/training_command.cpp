#include "moetron/run/training_command.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"
#include "moetron/config/argument_reader.h"
#include "moetron/config/shell_tokens.h"

namespace moetron {
namespace {

using Words = std::vector<ShellWord>;

constexpr size_t kMostWords = 5000;
constexpr const char* kNumberOfRanks = "the number of ranks (--world-size says it)";

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

// What single quotes have kept from the outer shell, the inner one expands: it is open here.
void leave_to_inner_shell(ShellWord& word) {
  const size_t dollar = word.text.find('$');
  if (!word.open.empty() || dollar == std::string::npos) return;
  size_t end = dollar + 1;
  while (end < word.text.size() && is_in_name(word.text[end])) ++end;
  word.open.push_back(end > dollar + 1 ? word.text.substr(dollar + 1, end - dollar - 1)
                                       : word.text);
  word.passed.reset();
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
    ShellValue value = word.value.empty() ? ShellValue{{.text = word.text}} : word.value;
    for (ShellPiece& piece : value) piece.splits = piece.open.empty();
    for (const ShellValue& inner : split_into_words(value)) {
      all.push_back(shell_word(inner));
      leave_to_inner_shell(all.back());
      all.back().condition = word.condition;
    }
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

// One of the counts of a launcher.
struct LauncherCount {
  bool is_given = false;
  std::optional<int64_t> number = {};  // empty: it is not given, or open, or no count
  std::vector<std::string> open = {};
};

// Of --name N, --name=N or -nN, where _ is as good as -; `names` are all spellings of one option.
LauncherCount launcher_count(const Words& launcher, const std::vector<std::string>& names) {
  LauncherCount count;
  for (size_t i = 0; i < launcher.size(); ++i) {
    std::string word = launcher[i].text;
    ShellWord value;
    const bool is_short = word.size() > 2 && word[0] == '-' && word[1] != '-' &&
                          word.find_first_not_of("0123456789", 2) == std::string::npos;
    if (const size_t equals = word.find('='); equals != std::string::npos) {
      value = launcher[i];
      value.text = word.substr(equals + 1);
      word.resize(equals);
    } else if (is_short) {
      value.text = word.substr(2);
      word.resize(2);
    } else if (i + 1 < launcher.size()) {
      value = launcher[i + 1];
    }
    std::replace(word.begin(), word.end(), '_', '-');
    if (std::find(names.begin(), names.end(), word) == names.end()) continue;
    count = {.is_given = true, .number = parse_number<int64_t>(value.text), .open = value.open};
    if (count.number && *count.number <= 0) count.number.reset();
  }
  return count;
}

enum class Launcher { kTorchrun, kSlurm, kMpi };

std::optional<Launcher> launcher_named(const ShellWord& word) {
  const std::string_view name = base_name(word.text);
  if (name == "torchrun" || word.text.starts_with("torch.distributed.")) return Launcher::kTorchrun;
  if (name == "srun") return Launcher::kSlurm;
  if (name.starts_with("mpirun") || name.starts_with("mpiexec")) return Launcher::kMpi;
  return {};
}

// How many ranks `command.launcher` starts, or what it hangs on.
void count_ranks(Launcher launcher, TrainingCommand& command) {
  const Words& words = command.launcher;
  const auto take = [&](const LauncherCount& each, const LauncherCount& times) {
    for (const LauncherCount* count : {&each, &times})
      for (const std::string& name : count->open) command.open_ranks.push_back(name);
    const int64_t one = 1;
    int64_t product = 0;
    const auto number = [&](const LauncherCount& count) {
      return count.is_given ? count.number : std::optional(one);
    };
    const auto a = number(each), b = number(times);
    if (a && b && !__builtin_mul_overflow(*a, *b, &product)) command.num_ranks = product;
    if (!command.num_ranks && command.open_ranks.empty())
      command.open_ranks.emplace_back(kNumberOfRanks);
  };
  if (launcher == Launcher::kTorchrun)
    return take(launcher_count(words, {"--nproc-per-node"}), launcher_count(words, {"--nnodes"}));
  const LauncherCount all = launcher == Launcher::kSlurm
                                ? launcher_count(words, {"--ntasks", "-n"})
                                : launcher_count(words, {"-np", "-n", "--np", "-c"});
  if (all.is_given) return take(all, {});
  const LauncherCount each = launcher_count(words, {"--ntasks-per-node"});
  const LauncherCount nodes = launcher_count(words, {"--nodes", "-N"});
  if (launcher == Launcher::kSlurm && (each.is_given || nodes.is_given)) return take(each, nodes);
  command.open_ranks.emplace_back(kNumberOfRanks);  // a file of hosts, or the allocation
}

// Of several, one within the other as srun and torchrun are, torchrun starts the ranks.
void take_launcher(const Words& before, TrainingCommand& command) {
  const auto is_torchrun = [](const ShellWord& word) {
    return launcher_named(word) == Launcher::kTorchrun;
  };
  auto begin = std::find_if(before.begin(), before.end(), is_torchrun);
  if (begin == before.end())
    begin = std::find_if(before.begin(), before.end(),
                         [](const ShellWord& word) { return launcher_named(word).has_value(); });
  if (begin == before.end()) return;
  const Launcher launcher = *launcher_named(*begin);
  // What stands between the launcher and the program: an interpreter, or a shell.
  const auto end = std::find_if(begin + 1, before.end(), [](const ShellWord& word) {
    const std::string_view name = base_name(word.text);
    return name.starts_with("python") || name == "bash" || name == "sh";
  });
  for (auto word = begin; word != end; ++word)
    if (word->open.empty() || word->passed != std::string() || (word - 1)->text.starts_with("-"))
      command.launcher.push_back(*word);
  count_ranks(launcher, command);
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
    take_launcher({words.begin(), at}, command);
    return command;
  }
  return {};
}

// What nobody has set is nothing, as for the shell, but where it is all that an option has.
Words without_unset(const Words& words) {
  const auto is_nothing = [](const ShellWord& word) {
    return !word.open.empty() && word.passed == std::string();
  };
  std::vector<std::string> texts;
  for (const ShellWord& word : words) texts.push_back(word.text);
  ArgumentReader reader(Command::kPretrain, std::move(texts));
  Words kept;
  while (!reader.at_end()) {
    const ReadArgument read = reader.next();
    const auto at = [&](size_t i) { return words.begin() + static_cast<std::ptrdiff_t>(i); };
    const bool is_known_option = read.setting.has_value();
    const size_t first_value = read.begin + (is_known_option ? 1 : 0);
    const bool is_all = is_known_option && std::all_of(at(first_value), at(read.end), is_nothing);
    for (size_t i = read.begin; i < read.end; ++i) {
      if (i >= first_value && !is_all && is_nothing(words[i])) continue;
      kept.push_back(words[i]);
      if (!is_known_option && words[i].passed)
        kept.back() = {.text = *words[i].passed, .open = {}, .condition = words[i].condition};
    }
  }
  return kept;
}

TrainingCommand checked(TrainingCommand command, const std::string& name) {
  MT_CHECK_INPUT(command.arguments.size() <= kMostWords, name, ": the command has ",
                 command.arguments.size(), " words, more than ", kMostWords);
  command.arguments = without_unset(command.arguments);
  drop_outer_quotes(command.arguments);
  return command;
}

}  // namespace

bool TrainingCommand::starts_by_torchrun() const {
  return !launcher.empty() && launcher_named(launcher[0]) == Launcher::kTorchrun;
}

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
  TrainingCommand list;
  list.arguments = std::move(given);
  return checked(std::move(list), "the command line");
}

}  // namespace moetron
