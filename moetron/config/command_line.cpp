#include "moetron/config/command_line.h"

#include <algorithm>
#include <optional>

#include "moetron/base/error.h"
#include "moetron/config/option_value.h"
#include "moetron/config/options_page.h"
#include "moetron/config/suggestion.h"
#include "moetron/config/toml_file.h"

namespace moetron {
namespace {

bool is_option(const std::string& word) {
  return word.size() > 2 && word.starts_with("--");
}

bool is_boolean(std::string word) {
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return word == "true" || word == "false";
}

// Cuts the words behind the command into settings.
class ArgumentReader {
 public:
  // Words without a name are values of `positional`; null: there are none.
  ArgumentReader(std::vector<std::string> words, const OptionSpec* positional,
                 std::vector<std::string>& errors)
      : words_(std::move(words)), positional_(positional), errors_(errors) {}

  std::vector<Setting> read() {
    std::vector<Scalar> unnamed;
    while (next_ < words_.size()) {
      const std::string word = words_[next_++];
      if (is_option(word)) {
        read_option(word);
      } else if (positional_ != nullptr) {
        unnamed.push_back({ScalarType::kUntyped, word});
      } else {
        errors_.push_back(concat("unexpected argument \"", word, "\""));
      }
    }
    if (!unnamed.empty())
      settings_.push_back({positional_, std::move(unnamed), "--" + positional_->name});
    return std::move(settings_);
  }

 private:
  void read_option(const std::string& word) {
    const size_t equals = word.find('=');
    const std::string shown = word.substr(0, equals);
    const auto found = option_table().find(shown.substr(2));
    if (!found) {
      errors_.push_back(
          concat("unknown option ", shown, option_table().suggestion(shown.substr(2), "--")));
      while (next_ < words_.size() && !is_option(words_[next_])) ++next_;  // its values
      return;
    }
    Setting setting{found->spec, {}, shown, !found->implied.empty()};
    if (!found->implied.empty()) {
      if (equals != std::string::npos) errors_.push_back(shown + " takes no value");
      setting.values = {{ScalarType::kUntyped, found->implied}};
    } else if (equals != std::string::npos) {
      setting.values = {{ScalarType::kUntyped, word.substr(equals + 1)}};
    } else {
      setting.values = read_values(*found->spec);
    }
    settings_.push_back(std::move(setting));
  }

  std::vector<Scalar> read_values(const OptionSpec& spec) {
    std::vector<Scalar> values;
    const bool has_next = next_ < words_.size();
    if (spec.kind == ValueKind::kFlag) {
      if (has_next && is_boolean(words_[next_])) return {{ScalarType::kUntyped, words_[next_++]}};
      return {{ScalarType::kUntyped, "true"}};
    }
    const bool is_list = spec.kind == ValueKind::kIntegers || spec.kind == ValueKind::kNumbers ||
                         spec.kind == ValueKind::kTexts;
    while (next_ < words_.size() && !is_option(words_[next_]) && (is_list || values.empty()))
      values.push_back({ScalarType::kUntyped, words_[next_++]});
    if (values.empty() && !spec.bare_value.empty())
      values.push_back({ScalarType::kUntyped, spec.bare_value});
    return values;
  }

  std::vector<std::string> words_;
  const OptionSpec* positional_;
  std::vector<std::string>& errors_;
  size_t next_ = 0;
  std::vector<Setting> settings_;
};

bool is_among(Command command, const std::vector<Command>& list) {
  return std::find(list.begin(), list.end(), command) != list.end();
}

bool belongs_to(const OptionSpec& spec, Command command) {
  return is_among(command, spec.commands);
}

// Applies settings to the options of one command and remembers which were given.
class Assembler {
 public:
  Assembler(Command command, ParsedCommandLine& parsed, std::vector<std::string>& errors)
      : command_(command), parsed_(parsed), errors_(errors) {}

  // The last of several settings of one option is the one that counts.
  void add(std::vector<Setting> settings) {
    for (Setting& setting : settings) {
      std::erase_if(given_, [&](const Setting& old) { return old.spec == setting.spec; });
      given_.push_back(std::move(setting));
    }
  }

  void assemble() {
    for (const Setting& setting : given_) apply(setting);
    for (const Setting& setting : given_) drop_if_idle(setting);
    for (const Setting& setting : given_) remark_on(setting);
    if (!idle_.empty()) parsed_.notices.insert(parsed_.notices.begin(), idle_text());
    std::string missing;
    for (const OptionSpec& spec : option_table().options())
      if (is_among(command_, spec.required_by) && !is_given(spec))
        missing += concat(missing.empty() ? "--" : ", --", spec.name);
    if (!missing.empty()) errors_.push_back(concat(command_name(command_), " needs ", missing));
  }

 private:
  void apply(const Setting& setting) {
    try {
      const bool belongs = belongs_to(*setting.spec, command_);
      // A file may serve several commands: the options of others are checked, then left alone.
      Options others;
      const std::string reason = apply_setting(setting, belongs ? parsed_.options : others);
      if (belongs && !reason.empty()) note(setting, reason);
      MT_CHECK_CONFIG(belongs || !is_option(setting.shown), setting.shown, " belongs to ",
                      command_list(setting.spec->commands), ", not to ", command_name(command_));
    } catch (const ConfigError& error) {
      errors_.push_back(error.what());
    }
  }

  void drop_if_idle(const Setting& setting) {
    const OptionSpec& spec = *setting.spec;
    if (!spec.idle || !belongs_to(spec, command_)) return;
    const std::string reason = spec.idle(parsed_.options);
    if (reason.empty()) return;
    reset_option(spec, parsed_.options);
    note(setting, reason);
  }

  void remark_on(const Setting& setting) {
    const OptionSpec& spec = *setting.spec;
    if (!spec.remark || !belongs_to(spec, command_)) return;
    const std::string remark = spec.remark(parsed_.options);
    if (!remark.empty()) parsed_.notices.push_back(concat(setting.shown, ": ", remark));
  }

  bool is_given(const OptionSpec& spec) const {
    return std::any_of(given_.begin(), given_.end(),
                       [&](const Setting& setting) { return setting.spec == &spec; });
  }

  void note(const Setting& setting, const std::string& reason) {
    idle_.push_back({setting.shown, reason});
  }

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
    const bool has_value = is_option(*next) && option_table().find(next->substr(2)).has_value();
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
  if (std::any_of(arguments.begin(), arguments.end(), asks_for_help)) {
    parsed.help = true;
    parsed.help_text = help_text(parsed.command);
    return parsed;
  }
  std::vector<std::string> errors;
  std::vector<Setting> typed =
      ArgumentReader(std::move(arguments), positional_option(parsed.command), errors).read();
  const std::string file = take_config_path(typed);
  Assembler assembler(parsed.command, parsed, errors);
  if (!file.empty()) assembler.add(read_toml_settings(file, errors));
  assembler.add(std::move(typed));
  assembler.assemble();
  throw_collected(errors);
  return parsed;
}

}  // namespace moetron
