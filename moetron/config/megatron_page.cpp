#include "moetron/config/megatron_page.h"

#include "moetron/base/error.h"
#include "moetron/config/option_table.h"
#include "moetron/config/options_page.h"

namespace moetron {
namespace {

using Text = std::string (*)(const OptionSpec& spec);
using Wanted = bool (*)(const OptionSpec& spec);

bool is_refused(const OptionSpec& spec) {
  return best_standing(spec) == Standing::kNotYet;
}

bool is_idle(const OptionSpec& spec) {
  return best_standing(spec) == Standing::kNoEffect;
}

bool works(const OptionSpec& spec) {
  return best_standing(spec) == Standing::kWorks;
}

bool is_megatrons(const OptionSpec& spec) {
  return spec.origin == Origin::kMegatron;
}

std::string names_of(const OptionSpec& spec) {
  std::string names = "`--" + spec.name + "`";
  for (const Spelling& spelling : spec.spellings) {
    names += " `--" + spelling.name + "`";
    if (spelling.factor != 1)
      names += concat(" (times ", spelling.factor, " ", spec.unit_name, ")");
  }
  return names;
}

std::string meaning_of(const OptionSpec& spec) {
  const std::string standing = standing_text(spec);
  return spec.meaning + (standing.empty() ? "" : " (" + standing + ")");
}

std::string default_in_megatron(const OptionSpec& spec) {
  const MegatronDefault& megatron = spec.megatron;
  const std::string value = megatron.same_as.empty() ? "`" + megatron.value + "`"
                                                     : "that of `--" + megatron.same_as + "`";
  return value + (megatron.when == nullptr ? "" : ", where the other options make it matter");
}

void append_table(std::string& out, const char* title, const char* heads, Wanted wanted,
                  Text text) {
  out += concat("\n## ", title, "\n\n| option | ", heads, " |\n|---|---|\n");
  for (const OptionSpec& spec : option_table().options()) {
    if (!spec.belongs_to(Command::kPretrain) || !wanted(spec)) continue;
    out += concat("| ", names_of(spec), " | ", table_cell(text(spec)), " |\n");
  }
}

}  // namespace

std::string megatron_page() {
  std::string out = kMegatronPageMark;
  append_table(
      out, "The same meaning", "meaning",
      [](const OptionSpec& spec) {
        return is_megatrons(spec) && works(spec) && spec.difference.empty();
      },
      meaning_of);
  append_table(
      out, "Another effect here", "difference",
      [](const OptionSpec& spec) { return is_megatrons(spec) && !spec.difference.empty(); },
      [](const OptionSpec& spec) { return spec.difference; });
  append_table(
      out, "No effect here", "reason",
      [](const OptionSpec& spec) { return is_megatrons(spec) && is_idle(spec); }, standing_text);
  append_table(
      out, "Missing", "what is lacking",
      [](const OptionSpec& spec) { return is_megatrons(spec) && is_refused(spec); }, standing_text);
  append_table(
      out, "Other defaults", "what Megatron takes where it is not given",
      [](const OptionSpec& spec) {
        return !spec.megatron.value.empty() || !spec.megatron.same_as.empty();
      },
      default_in_megatron);
  append_table(
      out, "Options of the guide", "meaning",
      [](const OptionSpec& spec) { return spec.origin == Origin::kGuide; }, meaning_of);
  append_table(
      out, "Options of Moetron alone", "meaning",
      [](const OptionSpec& spec) { return spec.origin == Origin::kOurs; }, meaning_of);
  return out;
}

}  // namespace moetron
