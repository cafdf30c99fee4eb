// moetron explain: what a Megatron command line does here.
#include "moetron/run/explain.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <sstream>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/formatted.h"
#include "moetron/base/json.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/nearest_fit.h"
#include "moetron/cli/run_findings.h"
#include "moetron/plan/dry_run.h"
#include "moetron/plan/dry_run_report.h"
#include "moetron/train/start.h"

namespace moetron {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kMostBytes = size_t{4} << 20;  // of a script

TrainingCommand read_command(const ExplainOptions& asked) {
  if (!asked.arguments.empty()) {
    MT_CHECK_CONFIG(asked.script.empty(), "explain takes a file (", asked.script[0],
                    ") or the words behind --, not both");
    return training_command_of(asked.arguments);
  }
  MT_CHECK_CONFIG(!asked.script.empty(), "explain needs a file, or a command line behind --");
  const std::string& name = asked.script[0];
  const MappedFile file(name);
  MT_CHECK_INPUT(file.size() <= kMostBytes, name, " has ", file.size(),
                 " bytes; a script that is explained has at most ", kMostBytes);
  ShellContext context;
  context.variable = [](const std::string& variable) -> std::optional<std::string> {
    const char* value = std::getenv(variable.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
  context.arguments.assign(asked.script.begin() + 1, asked.script.end());
  return find_training_command(file.text(), name, std::move(context));
}

std::string shown(const ExplainedOption& option) {
  return option.text + (option.condition.empty() ? "" : " (if " + option.condition + ")");
}

// Items one behind the other, in lines of a terminal.
void print_wrapped(const std::vector<std::string>& items, const std::string& between,
                   const std::string& indent, const std::string& line_end) {
  size_t column = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string item = items[i] + (i + 1 < items.size() ? between : "");
    if (column > 0 && column + 1 + item.size() + line_end.size() > kWidth) {
      std::cout << line_end << "\n";
      column = 0;
    }
    std::cout << (column == 0 ? indent : " ") << item;
    column += item.size() + (column == 0 ? indent.size() : 1);
  }
  std::cout << "\n";
}

void print_paragraph(const std::string& text, const std::string& indent) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  if (!words.empty()) print_wrapped(words, "", indent, "");
}

void print_title(const char* title, size_t count) {
  std::cout << "\n" << title << " (" << count << ")\n";
}

// What needs no sentence stands in a row, the rest a line each.
void print_working(const char* title, const std::vector<ExplainedOption>& options) {
  if (options.empty()) return;
  print_title(title, options.size());
  std::vector<std::string> plain;
  for (const ExplainedOption& option : options)
    if (option.note.empty()) plain.push_back(shown(option));
  if (!plain.empty()) print_wrapped(plain, ",", "  ", "");
  for (const ExplainedOption& option : options)
    if (!option.note.empty()) print_paragraph(shown(option) + ": " + option.note, "  ");
}

// A reason that several have stands once, behind the last of them.
void print_with_reasons(const char* title, const std::vector<ExplainedOption>& options) {
  if (options.empty()) return;
  print_title(title, options.size());
  std::vector<std::string> reasons;
  for (const ExplainedOption& option : options)
    if (std::find(reasons.begin(), reasons.end(), option.note) == reasons.end())
      reasons.push_back(option.note);
  for (const std::string& reason : reasons) {
    std::vector<std::string> items;
    for (const ExplainedOption& option : options)
      if (option.note == reason) items.push_back(shown(option));
    print_wrapped(items, ",", "  ", "");
    print_paragraph(reason, "      ");
  }
}

void print_sentences(const char* title, const std::vector<std::string>& sentences) {
  if (sentences.empty()) return;
  print_title(title, sentences.size());
  for (const std::string& sentence : sentences) print_paragraph(sentence, "  ");
}

// The run as it would be on the hardware; empty: something stands in its way.
std::optional<DryRun> planned_run(Explanation& explanation, const Hardware& hardware) {
  if (!explanation.run) return {};
  try {
    check_planned_device(explanation.run_options, *explanation.run, hardware);
  } catch (const ConfigError& error) {
    explanation.contradictions.emplace_back(error.what());
    explanation.run.reset();
    return {};
  }
  return dry_run(*explanation.run, hardware);
}

void print_layout(const Explanation& explanation, const DryRun& run, const Hardware& hardware) {
  const ParallelSizes& sizes = explanation.run->sizes;
  std::cout << "\nLayout\n  " << sizes.world << " ranks: tensor " << sizes.tp << ", pipeline "
            << sizes.pp << ", data " << sizes.dp << "; experts: tensor " << sizes.tpe
            << ", parallel " << sizes.ep << "; " << explanation.run->batch.num_micro_batches
            << " micro-batches a step\n";
  if (explanation.assumed_vocabulary)
    std::cout
        << "  nobody says the vocabulary: the tokenizer is taken for the family's released one of "
        << *explanation.assumed_vocabulary << " tokens\n";
  std::cout << formatted("  at most %.1f of a GPU's %.1f GB%s, %.3g s a step, %.0f tokens/s/GPU, ",
                         run.most().total() / 1e9, hardware.memory / 1e9,
                         run.fits ? "" : ": too much", run.prediction.step_time,
                         run.prediction.tokens_per_second)
            << "as on " << hardware.name << "; --dry-run tells more\n";
}

// As a shell takes it back, which expands what is open in it.
std::string quoted(const std::string& word, bool is_open) {
  const auto is_plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("-_./:=,+@%").find(c) != std::string_view::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), is_plain)) return word;
  if (is_open) return "\"" + word + "\"";
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

void print_command(const Explanation& explanation) {
  std::vector<std::string> items;  // an option with its values
  for (const std::string& word : explanation.command) {
    const bool begins = items.empty() || word.starts_with("--") || word == "moetron";
    const std::vector<std::string>& open = explanation.open_words;
    const bool is_open = std::find(open.begin(), open.end(), word) != open.end();
    if (begins) {
      items.push_back(quoted(word, is_open));
    } else {
      items.back() += " " + quoted(word, is_open);
    }
  }
  std::cout << "\nOur command\n";
  print_wrapped(items, "", "  ", " \\");
}

Json to_json(const std::vector<ExplainedOption>& options) {
  Json list = Json::array();
  for (const ExplainedOption& option : options) {
    Json entry{{"option", option.text}};
    if (!option.note.empty()) entry["note"] = option.note;
    if (!option.condition.empty()) entry["condition"] = option.condition;
    list.push_back(std::move(entry));
  }
  return list;
}

Json to_json(const Explanation& explanation, const std::optional<DryRun>& run) {
  Json json{{"ranks", explanation.num_ranks ? Json(*explanation.num_ranks) : Json()},
            {"same", to_json(explanation.same)},
            {"other", to_json(explanation.other)},
            {"added", to_json(explanation.added)},
            {"no_effect", to_json(explanation.idle)},
            {"missing", to_json(explanation.missing)},
            {"unknown", to_json(explanation.unknown)},
            {"contradictions", explanation.contradictions},
            {"open", explanation.open},
            {"command", explanation.command}};
  if (run) {
    json["step_time"] = run->prediction.step_time;
    json["tokens_per_second_per_gpu"] = run->prediction.tokens_per_second;
    json["memory"] = run->most().total();
    json["fits"] = run->fits;
  }
  return json;
}

void print(const Explanation& explanation, const std::optional<DryRun>& run,
           const Hardware& hardware) {
  print_working("Same meaning", explanation.same);
  print_working("Added: what Megatron does without being asked", explanation.added);
  print_with_reasons("Another effect here", explanation.other);
  print_with_reasons("No effect here", explanation.idle);
  print_with_reasons("Missing", explanation.missing);
  print_working("Unknown", explanation.unknown);
  print_sentences("Contradictions", explanation.contradictions);
  print_sentences(
      "Open: set them in the environment of this command, or give the script's arguments "
      "behind its name",
      explanation.open);
  if (run) print_layout(explanation, *run, hardware);
  print_command(explanation);
}

}  // namespace

int run_explain(const ParsedCommandLine& parsed) {
  say_notices(parsed);
  const Options& options = parsed.options;
  const TrainingCommand command = read_command(options.explain);
  Explanation explanation = explain(
      command, options.runtime.world_size,
      [](const Options& of_run, RunFacts& facts) { find_model(resolve_start(of_run), facts); });
  const Hardware hardware = planned_hardware(options);
  const std::optional<DryRun> run = planned_run(explanation, hardware);
  if (options.report.json) {
    std::cout << to_json(explanation, run).dump(2, ' ', false, Json::error_handler_t::replace)
              << "\n";
  } else {
    std::cout << (command.program.empty() ? "a list of options" : command.program) << ", ";
    if (explanation.num_ranks) {
      std::cout << *explanation.num_ranks << (explanation.num_ranks == 1 ? " rank\n" : " ranks\n");
    } else {
      std::cout << "the number of ranks is open\n";
    }
    print(explanation, run, hardware);
    std::cout << std::flush;
  }
  const std::string what = obstacles(explanation);
  const bool overflows = run && !run->fits;
  const std::string overflow =
      !overflows ? ""
                 : concat(describe_overflow(run->prediction.memory, hardware), "; ",
                          nearest_fit(explanation.run_options, explanation.facts, hardware));
  MT_CHECK_CONFIG(what.empty() && !overflows, what, what.empty() || !overflows ? "" : ". ",
                  overflow);
  return kExitDone;
}

}  // namespace moetron
