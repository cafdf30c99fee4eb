// The table of options: each is declared once, with name, type, default, unit, one sentence,
// spellings and standing. The command line, --help, TOML files, the dump in a checkpoint and
// docs/options.md are all read off it.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeindex>
#include <typeinfo>
#include <utility>
#include <variant>
#include <vector>

#include "moetron/config/options.h"

namespace moetron {

enum class Standing {
  kWorks,
  kNotYet,    // refused, naming the capability
  kNoEffect,  // accepted; one line says why nothing changes
};

enum class ValueKind {
  kFlag,
  kInteger,
  kNumber,
  kText,
  kChoice,
  kIntegers,
  kNumbers,
  kTexts,
  kPairs
};

// An enumerator of any type, for a table of options with enums of many.
struct Enumerator {
  std::type_index type = typeid(void);  // void: none
  int number = 0;

  Enumerator() = default;
  template <class T>
  requires std::is_enum_v<T>
  explicit Enumerator(T value) : type(typeid(T)), number(static_cast<int>(value)) {}
  bool operator==(const Enumerator&) const = default;
};

// An enum field; no enumerator stands for an empty std::optional.
struct EnumField {
  void* value;
  std::type_index type;
  Enumerator (*get)(const void* value);
  void (*set)(void* value, const Enumerator& enumerator);
};

// Where an option's value lives. Options without a field hold std::monostate.
using OptionField =
    std::variant<std::monostate, bool*, std::optional<bool>*, int64_t*, std::optional<int64_t>*,
                 double*, std::optional<double>*, std::string*, std::vector<int64_t>*,
                 std::vector<double>*, std::vector<std::string>*, EnumField>;

template <class T>
OptionField field_of(T& field) {
  if constexpr (std::is_enum_v<T>) {
    return EnumField{
        &field, typeid(T),
        [](const void* value) { return Enumerator(*static_cast<const T*>(value)); },
        [](void* value, const Enumerator& e) { *static_cast<T*>(value) = T(e.number); }};
  } else {
    return &field;
  }
}

template <class T>
requires std::is_enum_v<T> OptionField field_of(std::optional<T>& field) {
  return EnumField{&field, typeid(T),
                   [](const void* value) {
                     const auto& held = *static_cast<const std::optional<T>*>(value);
                     return held ? Enumerator(*held) : Enumerator();
                   },
                   [](void* value, const Enumerator& e) {
                     auto& held = *static_cast<std::optional<T>*>(value);
                     held = e == Enumerator() ? std::nullopt : std::optional<T>(T(e.number));
                   }};
}

// One value of a choice, with the enumerator that it means; a later choice of the same enumerator
// is another name of the first. Without an enumerator: of an option without a field, or refused.
struct Choice {
  std::string name;
  Enumerator meaning = {};
  Standing standing = Standing::kWorks;
  std::string why = {};  // the missing capability, or the reason of no effect

  explicit Choice(std::string text) : name(std::move(text)) {}
  template <class T>
  requires std::is_enum_v<T> Choice(std::string text, T enumerator)
      : name(std::move(text)), meaning(enumerator) {}
  Choice(std::string text, Standing how, std::string reason)
      : name(std::move(text)), standing(how), why(std::move(reason)) {}
};

// A further name. With a value it stands for that value: --bf16 is --dtype bf16. With a factor its
// numbers have another unit: minutes, of an option in seconds.
struct Spelling {
  std::string name;
  std::string value;
  double factor = 1;
};

// Whose option it is, or was first: readers of other programs' scripts want to know.
enum class Origin { kMegatron, kGuide, kOurs };

// What Megatron takes where the option is not given, if that is not what it is here.
struct MegatronDefault {
  std::string value;  // empty: that of another option
  std::string same_as;
  bool (*when)(const Options&) = nullptr;  // null: always
};

struct OptionSpec {
  std::string group;
  std::string name;  // with hyphens
  ValueKind kind = ValueKind::kFlag;
  std::string meaning;  // one sentence
  OptionField (*field)(Options&) = nullptr;

  std::string unit_name;
  std::vector<Command> commands;
  std::vector<Command> required_by;
  std::string alternative;     // the option that may be given instead of a required one
  bool is_positional = false;  // words without a name are its values
  std::string bare_value;      // of a list that is given without values; empty: it needs some
  // A run that continues another with a different value trains in another way, or on other data:
  // somebody has to have wanted it.
  bool decides_training = false;
  Standing standing = Standing::kWorks;
  std::string why;
  std::vector<Choice> choices;
  std::vector<Spelling> spellings;
  std::string only_value;  // not empty: the one value that works; `why` names what others need
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool minimum_excluded = false;
  bool maximum_excluded = false;
  // Why the option does nothing beside these other options; empty: it acts. Null: it always acts.
  std::string (*idle)(const Options&) = nullptr;
  // What the user should know of how the option acts beside these others; empty: nothing.
  std::string (*remark)(const Options&) = nullptr;

  Origin origin = Origin::kMegatron;
  MegatronDefault megatron;
  std::string difference;  // from Megatron's option of this name; empty: none
  bool (*differs_when)(const Options&) = nullptr;  // null: always
  bool takes_rest = false;                         // the words behind "--" are its values

  bool belongs_to(Command command) const;
  bool is_required_by(Command command) const;

  // The rest of a declaration, chained behind OptionTable::add().
  OptionSpec& unit(std::string text);
  OptionSpec& also(std::string spelling, std::string value = "");
  OptionSpec& also_times(std::string spelling, double factor);
  OptionSpec& required();  // by the commands named so far
  OptionSpec& required_unless(std::string other);
  OptionSpec& positional();
  OptionSpec& rest();
  OptionSpec& pairs();  // of a list: one word in braces, "key:value" after "key:value"
  OptionSpec& alone_means(std::string value);
  OptionSpec& deciding_training();
  OptionSpec& for_commands(std::vector<Command> list);
  OptionSpec& one_of(std::vector<Choice> list);
  OptionSpec& at_least(double bound);
  OptionSpec& above(double bound);
  OptionSpec& at_most(double bound);
  OptionSpec& below(double bound);
  OptionSpec& count();          // 1 .. 2^31 - 1
  OptionSpec& count_or_zero();  // 0 .. 2^31 - 1
  OptionSpec& not_yet(std::string capability);
  OptionSpec& no_effect(std::string reason);
  OptionSpec& only(std::string value, std::string capability);
  OptionSpec& idle_when(std::string (*reason)(const Options&));
  OptionSpec& remark_when(std::string (*text)(const Options&));
  OptionSpec& of_guide();
  OptionSpec& ours();
  OptionSpec& megatron_takes(std::string value, bool (*when)(const Options&) = nullptr);
  OptionSpec& megatron_takes_that_of(std::string option, bool (*when)(const Options&));
  // One sentence on the effect that Megatron's option of this name has and this one has not.
  OptionSpec& differs(std::string sentence, bool (*when)(const Options&) = nullptr);
};

struct OptionGroup {
  std::string name;  // the TOML table, and the member of Options
  std::string title;
  std::vector<Command> commands;  // of its options, unless they say otherwise
};

// A name that an option answers to, and the value that the name brings along.
struct FoundOption {
  const OptionSpec* spec = nullptr;
  std::string implied = {};  // empty: none
  double factor = 1;
};

class OptionTable {
 public:
  OptionTable();  // declares every option

  const std::vector<OptionGroup>& groups() const { return groups_; }
  const std::vector<OptionSpec>& options() const { return options_; }

  // Underscores count as hyphens; no- before the name of a working flag means false. Two commands
  // may have an option of one name each: then it is that of `command`, else the first.
  std::optional<FoundOption> find(std::string_view name,
                                  std::optional<Command> command = std::nullopt) const;
  const OptionGroup* find_group(std::string_view name) const;
  // What a name that is not known may mean, as config/suggestion.h says it.
  std::string suggestion(std::string_view name, const char* before) const;

  // For the declarations (option_groups.h).
  void begin_group(std::string name, std::string title, std::vector<Command> commands);
  OptionSpec& add(const char* group, const char* field_name, OptionField (*field)(Options&),
                  std::string meaning);
  // An option without a field: it is refused, has no effect, or works for the one built-in value.
  OptionSpec& add_fieldless(std::string name, ValueKind kind, std::string meaning);

 private:
  std::vector<OptionGroup> groups_;
  std::vector<OptionSpec> options_;
};

// The one table of the program; it never changes.
const OptionTable& option_table();

// A subcommand. Without `command` it is known but not there yet.
struct CommandSpec {
  std::string name;
  std::string meaning;
  std::optional<Command> command;
};
const std::vector<CommandSpec>& command_table();
const std::string& command_name(Command command);
// The option that the command's words without a name belong to; null: they are mistakes.
const OptionSpec* positional_option(Command command);
// The option that the words behind "--" belong to; null: they are no different.
const OptionSpec* rest_option(Command command);

}  // namespace moetron
