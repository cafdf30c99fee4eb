#include "moetron/config/toml_file.h"

#include <algorithm>
#include <map>
#include <utility>

#include <nlohmann/json.hpp>
#include <toml++/toml.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/toml_depth.h"

namespace moetron {
namespace {

// TOML's values are JSON's, but for dates and non-finite numbers, which no option takes.
Json to_json(const toml::node& node, const std::string& shown) {
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* array = node.as_array()) {
    Json list = Json::array();
    for (const toml::node& element : *array) {
      MT_CHECK_CONFIG(element.is_value(), shown, " must be a value or a list of values");
      list.push_back(to_json(element, shown));
    }
    return list;
  }
  throw ConfigError(concat(shown, " must be a value or a list of values"));
}

// module-impl = {core_attn = "local"} as the command line would have it.
std::vector<Scalar> pairs_of(const toml::table& table, const std::string& shown) {
  std::string text;
  for (const auto& [key, value] : table) {
    MT_CHECK_CONFIG(value.is_string(), shown, ".", key.str(), " must be a text");
    text += concat(text.empty() ? "" : ",", key.str(), ":", value.as_string()->get());
  }
  return {{ScalarType::kUntyped, "{" + text + "}"}};
}

class TomlReader {
 public:
  TomlReader(std::string file, Command command, std::vector<std::string>& errors)
      : file_(std::move(file)), command_(command), errors_(errors) {}

  void read(const toml::table& root) {
    for (const auto& [key, node] : root) {
      const std::string name(key.str());
      const OptionGroup* group = option_table().find_group(name);
      // "optimizer" is both a group and an option: a table means the group.
      if (group && node.is_table()) {
        for (const auto& [inner, value] : *node.as_table())
          collect(std::string(inner.str()), value, group);
      } else {
        collect(name, node, nullptr);
      }
    }
  }

  std::vector<Setting> settings;

 private:
  // A command whose options the group holds, so that a name is looked for there first.
  Command owner_of(const OptionGroup& group) const {
    return group.commands.empty() ? command_ : group.commands.front();
  }

  void collect(const std::string& key, const toml::node& node, const OptionGroup* group) {
    try {
      add(key, node, group);
    } catch (const ConfigError& error) {
      errors_.push_back(error.what());
    }
  }

  void add(const std::string& key, const toml::node& node, const OptionGroup* group) {
    const std::string shown = file_ + ": " + key;
    const auto found = option_table().find(key, group ? owner_of(*group) : command_);
    constexpr size_t kShown = 100;
    MT_CHECK_CONFIG(found, file_, ": unknown option ", key.substr(0, kShown),
                    key.size() > kShown ? "..." : "", option_table().suggestion(key, ""));
    const OptionSpec& spec = *found->spec;
    MT_CHECK_CONFIG(spec.name != "config", shown, " cannot name another file");
    MT_CHECK_CONFIG(!group || spec.group == group->name, shown, " belongs under [", spec.group,
                    "], not [", group ? group->name : "", "]");
    const auto [first, is_new] = first_.emplace(&spec, key);
    MT_CHECK_CONFIG(is_new, shown, " sets the same option as ", first->second);
    if (spec.kind == ValueKind::kPairs && node.is_table()) {
      settings.push_back({&spec, pairs_of(*node.as_table(), shown), shown});
      return;
    }
    std::vector<Scalar> values = json_scalars(to_json(node, shown), shown);
    if (!found->implied.empty()) {
      MT_CHECK_CONFIG(node.value_exact<bool>() == true, shown, " can only be true; see ",
                      spec.name);
      values = {{ScalarType::kUntyped, found->implied}};
    }
    settings.push_back({&spec, std::move(values), shown, !found->implied.empty(), found->factor});
  }

  std::string file_;
  Command command_;
  std::vector<std::string>& errors_;
  std::map<const OptionSpec*, std::string> first_;  // the key that set the option
};

// {a:b,c:d}, as the command line has pairs.
std::string word_of(const Json& pairs) {
  std::string word;
  for (const Json& pair : pairs) word += concat(word.empty() ? "{" : ",", pair.get<std::string>());
  return word + "}";
}

bool is_of(const OptionSpec& spec, Command command) {
  return std::find(spec.commands.begin(), spec.commands.end(), command) != spec.commands.end();
}

}  // namespace

std::string toml_of(const Options& options, Command command) {
  const Options defaults;
  std::string text, group;
  for (const OptionSpec& spec : option_table().options()) {
    if (spec.field == nullptr || !is_of(spec, command)) continue;
    const Json value = option_value(spec, options);
    if (value.is_null() || value == option_value(spec, defaults)) continue;
    if (std::exchange(group, spec.group) != spec.group)
      text += concat(text.empty() ? "[" : "\n[", spec.group, "]\n");
    // JSON's values are TOML's. Pairs are one word.
    const bool is_word = spec.kind == ValueKind::kPairs;
    text += concat(spec.name, " = ", is_word ? Json(word_of(value)).dump() : value.dump(), "\n");
  }
  return text;
}

std::vector<Setting> read_toml_settings(const std::filesystem::path& path, Command command,
                                        std::vector<std::string>& errors) {
  const std::string text = read_file(path);
  check_toml_depth(text, path.string());
  TomlReader reader(path.filename().string(), command, errors);
  try {
    reader.read(toml::parse(text));
  } catch (const toml::parse_error& error) {
    const auto place = error.source().begin;
    throw ConfigError(concat(path.string(), " is not TOML: line ", place.line, ", column ",
                             place.column, ": ", error.description()));
  }
  return std::move(reader.settings);
}

}  // namespace moetron
