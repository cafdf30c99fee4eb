#include "moetron/plan/hardware.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>

#include <toml++/toml.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/toml_depth.h"
#include "moetron/plan/built_in_hardware.h"

namespace moetron {
namespace {

// One table of the file, of which every key must be asked for.
class Table {
 public:
  Table(const toml::table& root, const std::string& name, std::string file)
      : Table(root[name].as_table(), name, std::move(file)) {}
  Table(const toml::table* table, const std::string& name, std::string file)
      : table_(table), name_(name), file_(std::move(file)) {
    MT_CHECK_INPUT(table_, file_, " has no table ", name_);
  }

  bool has(const std::string& key) const { return table_->contains(key); }
  double number(const std::string& key) {
    const auto value = finite(key);
    MT_CHECK_INPUT(value && *value > 0, file_, ": ", name_, ".", key, " must be a number above 0");
    MT_CHECK_INPUT(*value >= kLeast, file_, ": ", name_, ".", key, " (", *value,
                   ") must be at least ", kLeast);
    return *value;
  }
  int64_t whole_number(const std::string& key) {
    const double value = number(key);
    MT_CHECK_INPUT(value == std::floor(value) && value <= kMostCount, file_, ": ", name_, ".", key,
                   " (", value, ") must be a whole number from 1 to ", kMostCount);
    return static_cast<int64_t>(value);
  }
  double number_or_zero(const std::string& key) {
    const auto value = finite(key);
    MT_CHECK_INPUT(value && *value >= 0, file_, ": ", name_, ".", key,
                   " must be a number of at least 0");
    return *value;
  }
  std::string text(const std::string& key) {
    known_.insert(key);
    const auto value = (*table_)[key].value<std::string>();
    MT_CHECK_INPUT(value, file_, ": ", name_, ".", key, " must be a text");
    return *value;
  }

  void check_unknown() const {
    for (const auto& [key, node] : *table_)
      MT_CHECK_INPUT(known_.count(std::string(key.str())), file_, ": unknown key ", name_, ".",
                     key.str());
  }

 private:
  // Beyond what any machine has, so that times made of them are numbers.
  static constexpr double kLeast = 1e-15, kMost = 1e24, kMostCount = 1e6;

  // Empty where it is no number.
  std::optional<double> finite(const std::string& key) {
    known_.insert(key);
    const auto value = (*table_)[key].value<double>();
    MT_CHECK_INPUT(!value || std::isfinite(*value), file_, ": ", name_, ".", key, " (", *value,
                   ") must be finite");
    MT_CHECK_INPUT(!value || *value <= kMost, file_, ": ", name_, ".", key, " (", *value,
                   ") must be at most ", kMost);
    return value;
  }

  const toml::table* table_;
  std::string name_;
  std::string file_;
  std::set<std::string> known_;
};

// A number of the file, [table] key, and where it lies.
struct HardwareKey {
  enum class Range { kAboveZero, kFromZero, kFromZeroOrAbsent };
  const char* table;
  const char* key;
  double Hardware::*value;
  Range range = Range::kAboveZero;
};
using KeyRange = HardwareKey::Range;
constexpr HardwareKey kNumbers[] = {
    {"gpu", "matrix_rate", &Hardware::matrix_rate},
    {"gpu", "grouped_rate", &Hardware::grouped_rate},
    {"gpu", "memory_rate", &Hardware::memory_rate},
    {"gpu", "memory", &Hardware::memory},
    {"gpu", "multiprocessors", &Hardware::multiprocessors},
    {"links", "gpus_per_node", nullptr},  // an integer
    {"links", "node_rate", &Hardware::node_rate},
    {"links", "network_rate", &Hardware::network_rate},
    {"links", "message_latency", &Hardware::message_latency},
    {"host", "memory", &Hardware::host_memory},
    {"host", "adam_rate", &Hardware::adam_rate},
    {"system", "compute_slowdown", &Hardware::compute_slowdown},
    {"system", "launch_overhead", &Hardware::launch_overhead, KeyRange::kFromZero},
    {"system", "dispatch_overhead", &Hardware::dispatch_overhead, KeyRange::kFromZero},
    {"system", "tensor_overhead", &Hardware::tensor_overhead, KeyRange::kFromZeroOrAbsent},
    {"system", "dispatch_multiprocessors", &Hardware::dispatch_multiprocessors}};
constexpr const char* kTables[] = {"gpu", "links", "host", "system"};
constexpr const char* kDispatchOverheads = "dispatch_overheads";
struct AttentionKey {
  const char* key;
  double AttentionRate::*value;
};
constexpr const char* kHeadDim = "head_dim";
constexpr AttentionKey kAttentionRates[] = {{"forward", &AttentionRate::forward},
                                            {"backward", &AttentionRate::backward}};

std::vector<AttentionRate> read_attention(const toml::table& root, const std::string& file) {
  const auto* list = root["attention"].as_array();
  MT_CHECK_INPUT(list && !list->empty(), file, " has no [[attention]]");
  std::vector<AttentionRate> rates;
  for (const toml::node& node : *list) {
    Table table(node.as_table(), "attention", file);
    AttentionRate& rate = rates.emplace_back();
    rate.head_dim = table.whole_number(kHeadDim);
    for (const AttentionKey& key : kAttentionRates) rate.*key.value = table.number(key.key);
    table.check_unknown();
  }
  std::sort(rates.begin(), rates.end(),
            [](const auto& a, const auto& b) { return a.head_dim < b.head_dim; });
  return rates;
}

std::map<TokenDispatcher, double> read_dispatch_overheads(const toml::table& root,
                                                          const std::string& file) {
  if (!root.contains(kDispatchOverheads)) return {};
  std::map<TokenDispatcher, double> overheads;
  Table table(root, kDispatchOverheads, file);
  for (const TokenDispatcher dispatcher : kPlainDispatchers) {
    const char* name = dispatcher_name(dispatcher);
    if (table.has(name)) overheads[dispatcher] = table.number_or_zero(name);
  }
  table.check_unknown();
  return overheads;
}

double read_number(Table& table, const HardwareKey& key) {
  if (key.range == KeyRange::kAboveZero) return table.number(key.key);
  if (key.range == KeyRange::kFromZeroOrAbsent && !table.has(key.key)) return 0;
  return table.number_or_zero(key.key);
}

Hardware read_tables(const toml::table& root, const std::string& file) {
  Hardware hardware;
  const auto name = root["name"].value<std::string>();
  MT_CHECK_INPUT(name, file, " has no name");
  hardware.name = *name;
  hardware.attention = read_attention(root, file);
  for (const std::string table_name : kTables) {
    Table table(root, table_name, file);
    if (table_name == "system") hardware.system = table.text("name");
    for (const HardwareKey& key : kNumbers) {
      if (key.table != table_name) continue;
      if (key.value == nullptr) {
        hardware.gpus_per_node = table.whole_number(key.key);
      } else {
        hardware.*key.value = read_number(table, key);
      }
    }
    table.check_unknown();
  }
  MT_CHECK_INPUT(hardware.dispatch_multiprocessors < hardware.multiprocessors, file,
                 ": system.dispatch_multiprocessors (", hardware.dispatch_multiprocessors,
                 ") must be below gpu.multiprocessors (", hardware.multiprocessors, ")");
  hardware.dispatch_overheads = read_dispatch_overheads(root, file);
  std::set<std::string_view> known{"name", "attention", kDispatchOverheads};
  known.insert(std::begin(kTables), std::end(kTables));
  for (const auto& [key, node] : root)
    MT_CHECK_INPUT(known.count(key.str()), file, ": unknown key ", key.str());
  return hardware;
}

Hardware parse_hardware(const std::string& text, const std::string& file) {
  try {
    check_toml_depth(text, file);
    return read_tables(toml::parse(text), file);
  } catch (const toml::parse_error& error) {
    throw InputError(
        concat(file, " is not TOML: line ", error.source().begin.line, ": ", error.description()));
  }
}

constexpr std::string_view kMeasured = "# Measured by `moetron plan --calibrate`";

// The shortest digits that read as the same number.
std::string number_text(double value) {
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  return {digits.data(), end};
}

std::string quoted(const std::string& text) {
  std::ostringstream out;
  out << toml::value<std::string>(text);
  return out.str();
}

// "# " before each line, of 116 characters at most; nothing for an empty text.
std::string comment(const std::string& text) {
  constexpr size_t kWidth = 114;
  std::string lines, line;
  const auto end_line = [&] {
    if (!line.empty()) lines += "# " + line + "\n";
    line.clear();
  };
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!line.empty() && line.size() + 1 + word.size() > kWidth) end_line();
    line += (line.empty() ? "" : " ") + word;
  }
  end_line();
  return lines;
}

// Lines of a table, each behind its comment. Throws where a number has none.
class TableText {
 public:
  explicit TableText(const HardwareNotes& notes) : notes_(notes) {}

  void add(const std::string& name, const std::string& key, const std::string& value) {
    const auto note = notes_.find(name);
    MT_CHECK(note != notes_.end() && !note->second.empty(), "no word on where ", name, " is from");
    text_ += comment(note->second) + key + " = " + value + "\n";
  }
  void add_line(const std::string& line) { text_ += line + "\n"; }
  std::string text() const { return text_; }

 private:
  const HardwareNotes& notes_;
  std::string text_;
};

}  // namespace

Hardware read_hardware(const std::filesystem::path& path) {
  return parse_hardware(read_file(path), path.string());
}

Hardware built_in_hardware() {
  return parse_hardware(kBuiltInHardware, "the built-in hardware");
}

std::string hardware_text(const Hardware& hardware, const HardwareNotes& notes) {
  TableText text(notes);
  const auto head = notes.find("");
  if (head != notes.end()) text.add_line(comment(head->second));
  text.add_line("name = " + quoted(hardware.name));
  for (const AttentionRate& rate : hardware.attention) {
    text.add_line("\n[[attention]]\n" + concat(kHeadDim, " = ", rate.head_dim));
    for (const AttentionKey& key : kAttentionRates)
      text.add(attention_note(rate.head_dim, key.key), key.key, number_text(rate.*key.value));
  }
  for (const std::string table : kTables) {
    text.add_line("\n[" + table + "]");
    if (table == "system") text.add_line("name = " + quoted(hardware.system));
    for (const HardwareKey& key : kNumbers) {
      if (key.table != table) continue;
      const bool is_integer = key.value == nullptr;
      const std::string name = concat(table, ".", key.key);
      const bool may_be_absent = key.range == KeyRange::kFromZeroOrAbsent;
      if (may_be_absent && hardware.*key.value == 0 && !notes.contains(name)) continue;
      text.add(name, key.key,
               is_integer ? concat(hardware.gpus_per_node) : number_text(hardware.*key.value));
    }
  }
  if (!hardware.dispatch_overheads.empty()) text.add_line(concat("\n[", kDispatchOverheads, "]"));
  for (const auto& [dispatcher, seconds] : hardware.dispatch_overheads)
    text.add(dispatch_note(dispatcher), dispatcher_name(dispatcher), number_text(seconds));
  return text.text();
}

std::string attention_note(int64_t head_dim, const std::string& key) {
  return concat("attention.", head_dim, ".", key);
}

const char* dispatcher_name(TokenDispatcher dispatcher) {
  for (const NamedDispatcher& named : kDispatchers)
    if (named.kind == dispatcher) return named.name;
  throw InternalError("a token dispatcher without a name");
}

std::string dispatch_note(TokenDispatcher dispatcher) {
  return concat(kDispatchOverheads, ".", dispatcher_name(dispatcher));
}

const AttentionRate& attention_rate(const Hardware& hardware, int64_t head_dim) {
  const AttentionRate* best = &hardware.attention.front();
  for (const AttentionRate& rate : hardware.attention)
    if (rate.head_dim <= head_dim) best = &rate;
  return *best;
}

Hardware hardware_of(const std::filesystem::path& path) {
  return path.empty() ? built_in_hardware() : read_hardware(path);
}

bool is_measured_hardware(std::string_view text) {
  return text.starts_with(kMeasured);
}

}  // namespace moetron
