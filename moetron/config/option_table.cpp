#include "moetron/config/option_table.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "moetron/base/error.h"
#include "moetron/config/option_groups.h"
#include "moetron/config/suggestion.h"

namespace moetron {
namespace {

constexpr double kMaxCount = 2147483647;

std::string with_hyphens(std::string_view name) {
  std::string result(name);
  std::replace(result.begin(), result.end(), '_', '-');
  return result;
}

struct KindOf {
  ValueKind operator()(std::monostate) const {
    throw InternalError("a field of an option has no type");
  }
  ValueKind operator()(bool*) const { return ValueKind::kFlag; }
  ValueKind operator()(std::optional<bool>*) const { return ValueKind::kFlag; }
  ValueKind operator()(int64_t*) const { return ValueKind::kInteger; }
  ValueKind operator()(std::optional<int64_t>*) const { return ValueKind::kInteger; }
  ValueKind operator()(double*) const { return ValueKind::kNumber; }
  ValueKind operator()(std::optional<double>*) const { return ValueKind::kNumber; }
  ValueKind operator()(std::string*) const { return ValueKind::kText; }
  ValueKind operator()(std::vector<int64_t>*) const { return ValueKind::kIntegers; }
  ValueKind operator()(std::vector<double>*) const { return ValueKind::kNumbers; }
  ValueKind operator()(std::vector<std::string>*) const { return ValueKind::kTexts; }
  ValueKind operator()(const EnumField&) const { return ValueKind::kChoice; }
};

// What the option is under that name; nothing where it does not answer to it.
std::optional<FoundOption> answer(const OptionSpec& spec, const std::string& name) {
  if (spec.name == name) return FoundOption{&spec, ""};
  for (const Spelling& spelling : spec.spellings)
    if (spelling.name == name) return FoundOption{&spec, spelling.value, spelling.factor};
  return std::nullopt;
}

// A plan takes a run's options and writes them anew: it knows all of them, but for those that put
// something else in the run's place.
void share_with_plan(std::vector<OptionGroup>& groups, std::vector<OptionSpec>& options) {
  const auto share = [](std::vector<Command>& commands) {
    const bool is_of_runs =
        std::find(commands.begin(), commands.end(), Command::kPretrain) != commands.end();
    if (is_of_runs) commands.push_back(Command::kPlan);
  };
  for (OptionGroup& group : groups) share(group.commands);
  for (OptionSpec& spec : options)
    if (spec.name != "dry-run" && spec.name != "check-layout") share(spec.commands);
}

// Fine-tuning is a run on other data: it takes a run's options, but for those of token files, and
// says itself what it cannot do without.
void share_with_sft(std::vector<OptionGroup>& groups, std::vector<OptionSpec>& options) {
  constexpr std::array<std::string_view, 9> kOthers = {
      "mock-data",   "split",    "eod-mask-loss",      "reset-position-ids",  "dataset",
      "num-workers", "finetune", "max-padding-length", "reset-attention-mask"};
  const auto share = [](std::vector<Command>& commands) {
    const bool is_of_runs =
        std::find(commands.begin(), commands.end(), Command::kPretrain) != commands.end();
    if (is_of_runs) commands.push_back(Command::kSft);
  };
  for (OptionGroup& group : groups) share(group.commands);
  for (OptionSpec& spec : options) {
    if (std::find(kOthers.begin(), kOthers.end(), spec.name) != kOthers.end()) continue;
    share(spec.commands);
    const bool is_needed = spec.name == "load" || spec.name == "save" || spec.name == "data-path";
    if (is_needed) spec.required_by.push_back(Command::kSft);
  }
}

}  // namespace

bool OptionSpec::belongs_to(Command command) const {
  return std::find(commands.begin(), commands.end(), command) != commands.end();
}

bool OptionSpec::is_required_by(Command command) const {
  return std::find(required_by.begin(), required_by.end(), command) != required_by.end();
}

OptionSpec& OptionSpec::unit(std::string text) {
  unit_name = std::move(text);
  return *this;
}

OptionSpec& OptionSpec::also(std::string spelling, std::string value) {
  spellings.push_back({std::move(spelling), std::move(value)});
  return *this;
}

OptionSpec& OptionSpec::also_times(std::string spelling, double factor) {
  spellings.push_back({std::move(spelling), "", factor});
  return *this;
}

OptionSpec& OptionSpec::required() {
  required_by = commands;
  return *this;
}

OptionSpec& OptionSpec::required_unless(std::string other) {
  alternative = std::move(other);
  return required();
}

OptionSpec& OptionSpec::positional() {
  is_positional = true;
  return *this;
}

OptionSpec& OptionSpec::rest() {
  takes_rest = true;
  return *this;
}

OptionSpec& OptionSpec::pairs() {
  kind = ValueKind::kPairs;
  return *this;
}

OptionSpec& OptionSpec::alone_means(std::string value) {
  bare_value = std::move(value);
  return *this;
}

OptionSpec& OptionSpec::deciding_training() {
  decides_training = true;
  return *this;
}

OptionSpec& OptionSpec::for_commands(std::vector<Command> list) {
  commands = std::move(list);
  return *this;
}

OptionSpec& OptionSpec::one_of(std::vector<Choice> list) {
  choices = std::move(list);
  return *this;
}

OptionSpec& OptionSpec::at_least(double bound) {
  minimum = bound;
  minimum_excluded = false;
  return *this;
}

OptionSpec& OptionSpec::above(double bound) {
  minimum = bound;
  minimum_excluded = true;
  return *this;
}

OptionSpec& OptionSpec::at_most(double bound) {
  maximum = bound;
  maximum_excluded = false;
  return *this;
}

OptionSpec& OptionSpec::below(double bound) {
  maximum = bound;
  maximum_excluded = true;
  return *this;
}

OptionSpec& OptionSpec::count() {
  return at_least(1).at_most(kMaxCount);
}

OptionSpec& OptionSpec::count_or_zero() {
  return at_least(0).at_most(kMaxCount);
}

OptionSpec& OptionSpec::not_yet(std::string capability) {
  standing = Standing::kNotYet;
  why = std::move(capability);
  return *this;
}

OptionSpec& OptionSpec::no_effect(std::string reason) {
  standing = Standing::kNoEffect;
  why = std::move(reason);
  return *this;
}

OptionSpec& OptionSpec::only(std::string value, std::string capability) {
  only_value = std::move(value);
  why = std::move(capability);
  return *this;
}

OptionSpec& OptionSpec::idle_when(std::string (*reason)(const Options&)) {
  idle = reason;
  return *this;
}

OptionSpec& OptionSpec::remark_when(std::string (*text)(const Options&)) {
  remark = text;
  return *this;
}

OptionSpec& OptionSpec::of_guide() {
  origin = Origin::kGuide;
  return *this;
}

OptionSpec& OptionSpec::ours() {
  origin = Origin::kOurs;
  return *this;
}

OptionSpec& OptionSpec::megatron_takes(std::string value, bool (*when)(const Options&)) {
  megatron = {std::move(value), "", when};
  return *this;
}

OptionSpec& OptionSpec::megatron_takes_that_of(std::string option, bool (*when)(const Options&)) {
  megatron = {"", std::move(option), when};
  return *this;
}

OptionSpec& OptionSpec::differs(std::string sentence, bool (*when)(const Options&)) {
  difference = std::move(sentence);
  differs_when = when;
  return *this;
}

OptionTable::OptionTable() {
  declare_model(*this);
  declare_rotary_and_mla(*this);
  declare_moe(*this);
  declare_training(*this);
  declare_precision(*this);
  declare_tuning(*this);
  declare_optimizer(*this);
  declare_files(*this);
  declare_parallel(*this);
  declare_memory(*this);
  declare_kernels(*this);
  declare_runtime(*this);
  declare_sft(*this);
  declare_tools(*this);
  declare_curves(*this);
  declare_convert(*this);
  declare_plan(*this);
  declare_bench(*this);
  declare_launch(*this);
  declare_report(*this);
  declare_explain(*this);
  declare_megatron(*this);
  share_with_plan(groups_, options_);
  share_with_sft(groups_, options_);
}

void OptionTable::begin_group(std::string name, std::string title, std::vector<Command> commands) {
  groups_.push_back({std::move(name), std::move(title), std::move(commands)});
}

OptionSpec& OptionTable::add(const char* group, const char* field_name,
                             OptionField (*field)(Options&), std::string meaning) {
  MT_CHECK(groups_.back().name == group, field_name, " is declared under ", groups_.back().name);
  Options probe;
  OptionSpec& spec = add_fieldless(with_hyphens(field_name), std::visit(KindOf{}, field(probe)),
                                   std::move(meaning));
  spec.field = field;
  return spec;
}

OptionSpec& OptionTable::add_fieldless(std::string name, ValueKind kind, std::string meaning) {
  OptionSpec& spec = options_.emplace_back();
  spec.group = groups_.back().name;
  spec.name = std::move(name);
  spec.kind = kind;
  spec.meaning = std::move(meaning);
  spec.commands = groups_.back().commands;
  return spec;
}

std::optional<FoundOption> OptionTable::find(std::string_view name,
                                             std::optional<Command> command) const {
  const std::string wanted = with_hyphens(name);
  std::optional<FoundOption> first;
  for (const OptionSpec& spec : options_) {
    const std::optional<FoundOption> found = answer(spec, wanted);
    if (found && (!command || spec.belongs_to(*command))) return found;
    if (!first) first = found;
  }
  if (first) return first;
  if (wanted.starts_with("no-")) {
    for (const OptionSpec& spec : options_)
      if (spec.kind == ValueKind::kFlag && spec.standing == Standing::kWorks &&
          spec.name == wanted.substr(3))
        return FoundOption{&spec, "false"};
  }
  return std::nullopt;
}

const OptionGroup* OptionTable::find_group(std::string_view name) const {
  for (const OptionGroup& group : groups_)
    if (group.name == name) return &group;
  return nullptr;
}

std::string OptionTable::suggestion(std::string_view name, const char* before) const {
  std::vector<std::string> names;
  for (const OptionSpec& spec : options_) {
    names.push_back(spec.name);
    for (const Spelling& spelling : spec.spellings) names.push_back(spelling.name);
  }
  return moetron::suggestion(with_hyphens(name), names, before);
}

const OptionTable& option_table() {
  static const OptionTable table;
  return table;
}

const std::vector<CommandSpec>& command_table() {
  static const std::vector<CommandSpec> table{
      {"pretrain", "Trains a model on token files.", Command::kPretrain},
      {"launch", "Starts the ranks of a training on this machine.", Command::kLaunch},
      {"preprocess", "Turns text or JSONL into token files.", Command::kPreprocess},
      {"generate", "Continues a prompt with a trained model.", Command::kGenerate},
      {"chat", "Talks with a trained model.", Command::kChat},
      {"sft", "Fine-tunes a model on conversations.", Command::kSft},
      {"convert", "Converts checkpoints between formats.", Command::kConvert},
      {"compare", "Compares two checkpoints tensor by tensor.", Command::kCompare},
      {"simulate", "Times a pipeline schedule on paper.", Command::kSimulate},
      {"explain", "Reads a Megatron command line and tells what it does here.", Command::kExplain},
      {"plan", "Searches for the fastest layout that fits.", Command::kPlan},
      {"compare-loss", "Compares the loss curves of two runs.", Command::kCompareLoss},
      {"plot", "Draws the curves of one or more runs.", Command::kPlot},
      {"inspect", "Shows what a checkpoint or data file holds.", {}},
      {"bench", "Measures training steps, kernels or overlap.", Command::kBench},
      {"demo", "Trains a small model on real text and shows the result.", Command::kDemo},
      {"doctor", "Checks the machine before a run.", Command::kDoctor},
  };
  return table;
}

const std::string& command_name(Command command) {
  for (const CommandSpec& spec : command_table())
    if (spec.command == command) return spec.name;
  throw InternalError("a command has no name");
}

namespace {

const OptionSpec* find_of_command(Command command, bool OptionSpec::*kind) {
  for (const OptionSpec& spec : option_table().options())
    if (spec.*kind && spec.belongs_to(command)) return &spec;
  return nullptr;
}

}  // namespace

const OptionSpec* positional_option(Command command) {
  return find_of_command(command, &OptionSpec::is_positional);
}

const OptionSpec* rest_option(Command command) {
  return find_of_command(command, &OptionSpec::takes_rest);
}

}  // namespace moetron
