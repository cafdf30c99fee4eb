#include "moetron/plan/hardware.h"

#include <algorithm>
#include <set>

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

  double number(const std::string& key) {
    known_.insert(key);
    const auto value = (*table_)[key].value<double>();
    MT_CHECK_INPUT(value && *value > 0, file_, ": ", name_, ".", key, " must be a number above 0");
    return *value;
  }
  double number_or_zero(const std::string& key) {
    known_.insert(key);
    const auto value = (*table_)[key].value<double>();
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
  const toml::table* table_;
  std::string name_;
  std::string file_;
  std::set<std::string> known_;
};

std::vector<AttentionRate> read_attention(const toml::table& root, const std::string& file) {
  const auto* list = root["attention"].as_array();
  MT_CHECK_INPUT(list && !list->empty(), file, " has no [[attention]]");
  std::vector<AttentionRate> rates;
  for (const toml::node& node : *list) {
    Table table(node.as_table(), "attention", file);
    rates.push_back({static_cast<int64_t>(table.number("head_dim")), table.number("forward"),
                     table.number("backward")});
    table.check_unknown();
  }
  std::sort(rates.begin(), rates.end(),
            [](const auto& a, const auto& b) { return a.head_dim < b.head_dim; });
  return rates;
}

Hardware read_tables(const toml::table& root, const std::string& file) {
  Hardware hardware;
  const auto name = root["name"].value<std::string>();
  MT_CHECK_INPUT(name, file, " has no name");
  hardware.name = *name;
  hardware.attention = read_attention(root, file);
  Table gpu(root, "gpu", file);
  hardware.matrix_rate = gpu.number("matrix_rate");
  hardware.grouped_rate = gpu.number("grouped_rate");
  hardware.memory_rate = gpu.number("memory_rate");
  hardware.memory = gpu.number("memory");
  hardware.multiprocessors = gpu.number("multiprocessors");
  gpu.check_unknown();
  Table links(root, "links", file);
  hardware.gpus_per_node = static_cast<int64_t>(links.number("gpus_per_node"));
  hardware.node_rate = links.number("node_rate");
  hardware.network_rate = links.number("network_rate");
  hardware.message_latency = links.number("message_latency");
  links.check_unknown();
  Table host(root, "host", file);
  hardware.host_memory = host.number("memory");
  hardware.adam_rate = host.number("adam_rate");
  host.check_unknown();
  Table system(root, "system", file);
  hardware.system = system.text("name");
  hardware.compute_slowdown = system.number("compute_slowdown");
  hardware.launch_overhead = system.number_or_zero("launch_overhead");
  hardware.dispatch_overhead = system.number_or_zero("dispatch_overhead");
  hardware.dispatch_multiprocessors = system.number("dispatch_multiprocessors");
  system.check_unknown();
  MT_CHECK_INPUT(hardware.dispatch_multiprocessors < hardware.multiprocessors, file,
                 ": system.dispatch_multiprocessors (", hardware.dispatch_multiprocessors,
                 ") must be below gpu.multiprocessors (", hardware.multiprocessors, ")");
  const std::set<std::string_view> known{"name", "attention", "gpu", "links", "host", "system"};
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

}  // namespace

Hardware read_hardware(const std::filesystem::path& path) {
  return parse_hardware(read_file(path), path.string());
}

Hardware built_in_hardware() {
  return parse_hardware(kBuiltInHardware, "the built-in hardware");
}

const AttentionRate& attention_rate(const Hardware& hardware, int64_t head_dim) {
  const AttentionRate* best = &hardware.attention.front();
  for (const AttentionRate& rate : hardware.attention)
    if (rate.head_dim <= head_dim) best = &rate;
  return *best;
}

}  // namespace moetron
