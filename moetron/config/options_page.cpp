#include "moetron/config/options_page.h"

#include <algorithm>
#include <sstream>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/config/option_value.h"

namespace moetron {
namespace {

constexpr size_t kWidth = 100;

std::string choice_names(const OptionSpec& spec, bool (*wanted)(const Choice&)) {
  std::string names;
  for (const Choice& choice : spec.choices)
    if (wanted(choice)) names += (names.empty() ? "" : ", ") + choice.name;
  return names;
}

bool is_usable(const Choice& choice) {
  return choice.standing != Standing::kNotYet;
}

// What stands behind the name on the command line.
std::string value_text(const OptionSpec& spec) {
  switch (spec.kind) {
    case ValueKind::kFlag:
      return "";
    case ValueKind::kInteger:
      return "N";
    case ValueKind::kNumber:
      return "X";
    case ValueKind::kText:
      return "TEXT";
    case ValueKind::kChoice:
      return "NAME";
    case ValueKind::kIntegers:
      return "N ...";
    case ValueKind::kNumbers:
      return "X ...";
    case ValueKind::kTexts:
      return "TEXT ...";
    case ValueKind::kPairs:
      return "{MODULE:NAME}";
  }
  throw InternalError("a kind of value has no text");
}

std::string default_text(const OptionSpec& spec) {
  if (!spec.only_value.empty()) return spec.only_value;
  const Json value = option_value(spec, Options{});
  if (value.is_null() || value == "" || (value.is_array() && value.empty())) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return concat(value.get<double>());
  if (!value.is_array()) return value.dump();
  std::string list;
  for (const Json& element : value) {
    const std::string text =
        element.is_string() ? element.get<std::string>() : concat(element.get<double>());
    list += (list.empty() ? "" : ",") + text;
  }
  return list;
}

void append_wrapped(std::string& out, const std::string& text, size_t indent) {
  std::istringstream words(text);
  size_t column = kWidth;
  for (std::string word; words >> word; column += word.size()) {
    if (column + 1 + word.size() >= kWidth) {
      out += concat(out.empty() || out.back() == '\n' ? "" : "\n", std::string(indent, ' '));
      column = indent;
    } else {
      out += ' ';
      ++column;
    }
    out += word;
  }
  out += '\n';
}

void append_help(std::string& out, const OptionSpec& spec, Command command) {
  const std::string value = value_text(spec);
  out += concat("  --", spec.name, value.empty() ? "" : " ", value);
  for (const Spelling& spelling : spec.spellings) out += ", --" + spelling.name;
  out += '\n';
  std::string text = spec.meaning;
  if (spec.kind == ValueKind::kChoice) text += " {" + choice_names(spec, is_usable) + "}";
  if (!spec.unit_name.empty()) text += " [" + spec.unit_name + "]";
  const std::string fallback = default_text(spec);
  if (spec.is_required_by(command)) {
    text += " (required)";
  } else if (!fallback.empty() && fallback != "false") {
    text += " (default " + fallback + ")";
  }
  append_wrapped(out, text, 6);
}

// Of an option of several commands, those that cannot do without it, unless the first is among
// them.
std::string required_text(const OptionSpec& spec) {
  return spec.is_required_by(spec.commands.front())
             ? "required"
             : "required by " + command_list(spec.required_by);
}

void append_row(std::string& out, const OptionSpec& spec) {
  std::string name = "`--" + spec.name + "`";
  for (const Spelling& spelling : spec.spellings) name += " `--" + spelling.name + "`";
  std::string value = value_text(spec);
  if (spec.kind == ValueKind::kChoice)
    value = choice_names(spec, [](const Choice&) { return true; });
  if (!spec.unit_name.empty()) value += " " + spec.unit_name;
  const std::string standing = standing_text(spec);
  out += concat("| ", name, " | ", table_cell(value), " | ",
                spec.required_by.empty() ? default_text(spec) : required_text(spec), " | ",
                table_cell(spec.meaning), " | ", standing.empty() ? "works" : table_cell(standing),
                " |\n");
}

void append_command_table(std::string& out) {
  out += "## Commands\n\n| command | meaning | standing |\n|---|---|---|\n";
  for (const CommandSpec& spec : command_table())
    out += concat("| `", spec.name, "` | ", spec.meaning, " | ", spec.command ? "works" : "not yet",
                  " |\n");
}

constexpr const char* kPageHead =
    "# Options\n\n"
    "This page is written from the table of options in `moetron/config/`; a test fails when it is\n"
    "out of date, and `MOETRON_WRITE_DOCS=1 config_test` writes it anew.\n\n"
    "    moetron COMMAND --option value ... [--config run.toml]\n\n"
    "- `--name value` and `--name=value` are the same; the last of a repeated option wins.\n"
    "- A flag may be followed by `True` or `False`; `--no-NAME` switches a working flag off.\n"
    "- A list runs up to the next option; numbers may be separated by commas.\n"
    "- A TOML file holds the same names, flat (`lr = 1e-4`) or under the headings below\n"
    "  (`[optimizer]`), with `_` or `-`. The command line wins over the file.\n"
    "- An unknown option is an error that names the known ones near it.\n"
    "- Standing: *works*; *not yet*: refused, naming what is missing; *no effect here*: accepted,\n"
    "  with a line at the start that says why.\n"
    "- An empty default means: not given. Of a model's shape, the `config.json` of `--load` then\n"
    "  decides.\n\n";

}  // namespace

std::string standing_text(const OptionSpec& spec) {
  if (!spec.only_value.empty()) return "only " + spec.only_value + "; not yet: " + spec.why;
  if (spec.standing == Standing::kNotYet) return "not yet: " + spec.why;
  if (spec.standing == Standing::kNoEffect) return "no effect here: " + spec.why;
  std::string text;
  const std::string idle = choice_names(
      spec, [](const Choice& choice) { return choice.standing == Standing::kNoEffect; });
  if (!idle.empty()) text = "no effect here: " + spec.choices[0].why;
  for (const Choice& choice : spec.choices)
    if (!is_usable(choice))
      text += concat(text.empty() ? "" : "; ", "not yet: ", choice.name, " (", choice.why, ")");
  return text;
}

Standing best_standing(const OptionSpec& spec) {
  if (spec.choices.empty()) return spec.standing;
  Standing best = Standing::kNotYet;
  for (const Choice& choice : spec.choices) {
    if (choice.standing == Standing::kWorks) return Standing::kWorks;
    if (choice.standing == Standing::kNoEffect) best = Standing::kNoEffect;
  }
  return best;
}

std::string table_cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2)
    text.insert(at, "\\");
  return text;
}

std::string command_list(const std::vector<Command>& commands) {
  std::string list;
  for (const Command command : commands) {
    const char* joint = command == commands.back() ? " and " : ", ";
    list += (list.empty() ? "" : joint) + command_name(command);
  }
  return list;
}

std::string help_text() {
  std::string out =
      "usage: moetron COMMAND [--option value ...] [--config run.toml]\n"
      "       moetron --version\n\n";
  std::string later;
  for (const CommandSpec& spec : command_table()) {
    if (spec.command) {
      out += concat("  ", spec.name, std::string(14 - spec.name.size(), ' '), spec.meaning, "\n");
    } else {
      later += (later.empty() ? "" : ", ") + spec.name;
    }
  }
  return out + "\nNot there yet: " + later + ".\nmoetron COMMAND --help lists its options.\n";
}

std::string help_text(Command command) {
  const OptionSpec* positional = positional_option(command);
  std::string out = concat(
      "usage: moetron ", command_name(command),
      positional == nullptr ? "" : " [--" + positional->name + "] " + value_text(*positional),
      " [--option value ...]",
      command == Command::kLaunch ? " COMMAND [--option of COMMAND ...]" : " [--config run.toml]",
      "\n");
  std::string idle;
  std::string later;
  for (const OptionGroup& group : option_table().groups()) {
    std::string section;
    for (const OptionSpec& spec : option_table().options()) {
      if (spec.group != group.name || !spec.belongs_to(command)) continue;
      const Standing standing = best_standing(spec);
      if (standing == Standing::kWorks) {
        append_help(section, spec, command);
      } else {
        std::string& list = standing == Standing::kNotYet ? later : idle;
        list += (list.empty() ? "--" : ", --") + spec.name;
      }
    }
    if (!section.empty()) out += concat("\n", group.title, "\n", section);
  }
  if (!idle.empty()) {
    out += "\nAccepted without effect\n";
    append_wrapped(out, idle, 2);
  }
  if (!later.empty()) {
    out += "\nNot there yet\n";
    append_wrapped(out, later, 2);
  }
  return out;
}

std::string options_page() {
  std::string out = kPageHead;
  append_command_table(out);
  for (const OptionGroup& group : option_table().groups()) {
    out += concat("\n## ", group.title, "\n\nTOML table `[", group.name, "]`");
    out += group.commands.empty() ? ".\n\n" : "; " + command_list(group.commands) + ".\n\n";
    out += "| option | value | default | meaning | standing |\n|---|---|---|---|---|\n";
    for (const OptionSpec& spec : option_table().options())
      if (spec.group == group.name) append_row(out, spec);
  }
  return out;
}

}  // namespace moetron
