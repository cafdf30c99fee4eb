#include "moetron/config/command_line.h"

#include <algorithm>
#include <optional>

#include "moetron/base/error.h"
#include "moetron/config/applied_settings.h"
#include "moetron/config/argument_reader.h"
#include "moetron/config/options_page.h"
#include "moetron/config/suggestion.h"
#include "moetron/config/toml_file.h"

namespace moetron {
namespace {

// Of one command: its settings, and what is said of them.
class Assembler {
 public:
  Assembler(Command command, ParsedCommandLine& parsed, std::vector<std::string>& errors)
      : command_(command), parsed_(parsed), errors_(errors) {}

  void add(std::vector<Setting> settings) {
    for (Setting& setting : settings) given_.push_back(std::move(setting));
  }

  void assemble() {
    keep_last(given_);
    const auto applied = apply_settings(command_, std::move(given_), parsed_.options);
    for (const AppliedSetting& one : applied) {
      const std::string& shown = one.setting.shown;
      if (!one.mistake.empty()) {
        errors_.push_back(one.mistake);
      } else if (one.standing == Standing::kNotYet) {
        errors_.push_back(not_yet_sentence(one.setting, one.why));
      }
      if (one.standing == Standing::kNoEffect) idle_.push_back({shown, one.why});
      if (!one.remark.empty()) parsed_.notices.push_back(concat(shown, ": ", one.remark));
    }
    if (!idle_.empty()) parsed_.notices.insert(parsed_.notices.begin(), idle_text());
    parsed_.given = names_of(applied);
    if (command_ == Command::kSft) {
      parsed_.options.sft.applies = true;
      parsed_.options.sft.given = parsed_.given;
    }
    if (command_ == Command::kPlan) {
      const std::string misplaced = misplaced_by_calibration(parsed_.options, parsed_.given);
      if (!misplaced.empty()) errors_.push_back(misplaced);
    }
    const std::string missing = missing_options(command_, parsed_.given);
    if (!missing.empty()) errors_.push_back(missing);
  }

 private:
  // One line for all; a reason that several have stands once, behind the last of them.
  std::string idle_text() {
    if (idle_.size() == 1) return concat(idle_[0].shown, " has no effect here: ", idle_[0].reason);
    std::string text = "no effect here: ";
    std::stable_sort(idle_.begin(), idle_.end(),
                     [](const Idle& a, const Idle& b) { return a.reason < b.reason; });
    for (size_t i = 0; i < idle_.size(); ++i) {
      text += idle_[i].shown;
      const bool is_last = i + 1 == idle_.size();
      const bool goes_on = !is_last && idle_[i + 1].reason == idle_[i].reason;
      text += goes_on ? ", " : concat(" (", idle_[i].reason, is_last ? ")" : "); ");
    }
    return text;
  }

  struct Idle {
    std::string shown, reason;
  };

  Command command_;
  ParsedCommandLine& parsed_;
  std::vector<std::string>& errors_;
  std::vector<Setting> given_;
  std::vector<Idle> idle_;  // given, and without effect
};

// What was typed behind the command.
std::vector<Setting> read_typed(std::vector<std::string> words, Command command,
                                std::vector<std::string>& errors) {
  const OptionSpec* positional = positional_option(command);
  const OptionSpec* rest = rest_option(command);
  std::vector<Setting> settings;
  std::vector<Scalar> unnamed;
  ArgumentReader reader(command, std::move(words));
  while (!reader.at_end()) {
    ReadArgument read = reader.next();
    if (!read.mistake.empty()) errors.push_back(read.mistake);
    if (read.setting) {
      settings.push_back(std::move(*read.setting));
    } else if (read.shown == "--" && rest != nullptr) {
      Setting& setting = settings.emplace_back(Setting{rest, {}, "--"});
      for (std::string& word : reader.rest())
        setting.values.push_back({ScalarType::kUntyped, std::move(word)});
    } else if (read.mistake.empty() && positional != nullptr) {
      unnamed.push_back({ScalarType::kUntyped, reader.words()[read.begin]});
    } else if (read.mistake.empty()) {
      errors.push_back(concat("unexpected argument \"", read.shown, "\""));
    }
  }
  if (!unnamed.empty())
    settings.push_back({positional, std::move(unnamed), "--" + positional->name});
  return settings;
}

Command find_command(const std::string& word) {
  std::vector<std::string> names;
  for (const CommandSpec& spec : command_table()) {
    if (spec.name == word) {
      MT_CHECK_CONFIG(spec.command, "the command ", word, " is not there yet");
      return *spec.command;
    }
    names.push_back(spec.name);
  }
  const std::string near = suggestion(word, names, "");
  throw ConfigError(
      concat("unknown command \"", word, "\"", near.empty() ? "; moetron --help lists all" : near));
}

bool asks_for_help(const std::string& word) {
  return word == "--help" || word == "-h";
}

// Takes from the words of launch the command that ranks run, and all behind it.
std::vector<std::string> take_launched(std::vector<std::string>& words) {
  auto next = words.begin();
  while (next != words.end() && next->starts_with("-")) {
    if (*next == "-n") *next = "--nproc-per-node";
    const bool has_value =
        is_option(*next) && option_table().find(next->substr(2), Command::kLaunch).has_value();
    next += has_value && next + 1 != words.end() ? 2 : 1;
  }
  std::vector<std::string> launched(next, words.end());
  words.erase(next, words.end());
  return launched;
}

void throw_collected(const std::vector<std::string>& errors) {
  std::string message;
  for (const std::string& error : errors) message += (message.empty() ? "" : "\n") + error;
  if (!message.empty()) throw ConfigError(message);
}

// Takes --config out of the settings; the last one names the file.
std::string take_config_path(std::vector<Setting>& settings) {
  std::string path;
  Options unused;
  for (const Setting& setting : settings) {
    if (setting.spec->name != "config") continue;
    apply_setting(setting, unused);  // checks that there is one text
    path = setting.values[0].text;
  }
  std::erase_if(settings, [](const Setting& setting) { return setting.spec->name == "config"; });
  return path;
}

}  // namespace

ParsedCommandLine parse_command_line(int argc, const char* const* argv) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  ParsedCommandLine parsed;
  if (words.empty() || asks_for_help(words[0])) {
    parsed.help = true;
    parsed.help_text = help_text();
    return parsed;
  }
  parsed.command = find_command(words[0]);
  std::vector<std::string> arguments(words.begin() + 1, words.end());
  if (parsed.command == Command::kLaunch) parsed.launched = take_launched(arguments);
  // Words behind "--" are another program's.
  const auto own_end = rest_option(parsed.command)
                           ? std::find(arguments.begin(), arguments.end(), "--")
                           : arguments.end();
  if (std::any_of(arguments.begin(), own_end, asks_for_help)) {
    parsed.help = true;
    parsed.help_text = help_text(parsed.command);
    return parsed;
  }
  std::vector<std::string> errors;
  std::vector<Setting> typed = read_typed(std::move(arguments), parsed.command, errors);
  const std::string file = take_config_path(typed);
  for (const Setting& setting : typed) parsed.typed.push_back(setting.spec->name);
  Assembler assembler(parsed.command, parsed, errors);
  if (!file.empty()) assembler.add(read_toml_settings(file, parsed.command, errors));
  assembler.add(std::move(typed));
  assembler.assemble();
  throw_collected(errors);
  return parsed;
}

}  // namespace moetron
