#include "moetron/metrics/step_record.h"

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"

namespace moetron {
namespace {

void add_optional(Json& out, const char* key, const std::optional<double>& value) {
  if (value) out[key] = number_to_json(*value);
}

double number_from_json(const Json& value, const char* key, const std::string& place) {
  if (value.is_number()) return value.get<double>();
  if (value == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (value == "inf") return std::numeric_limits<double>::infinity();
  if (value == "-inf") return -std::numeric_limits<double>::infinity();
  throw InputError(concat(place, ": ", key, " is not a number"));
}

std::optional<double> optional_number(const Json& json, const char* key, const std::string& place) {
  const auto found = json.find(key);
  if (found == json.end()) return std::nullopt;
  return number_from_json(*found, key, place);
}

double required_number(const Json& json, const char* key, const std::string& place) {
  const auto value = optional_number(json, key, place);
  MT_CHECK_INPUT(value.has_value(), place, ": the key ", key, " is missing");
  return *value;
}

int64_t required_integer(const Json& json, const char* key, const std::string& place) {
  const auto found = json.find(key);
  MT_CHECK_INPUT(found != json.end(), place, ": the key ", key, " is missing");
  MT_CHECK_INPUT(found->is_number_integer(), place, ": ", key, " is not an integer");
  return found->get<int64_t>();
}

std::vector<double> number_list(const Json& json, const char* key, const std::string& place) {
  const auto found = json.find(key);
  MT_CHECK_INPUT(found != json.end() && found->is_array(), place, ": ", key, " is no list");
  std::vector<double> numbers;
  for (const Json& value : *found) numbers.push_back(number_from_json(value, key, place));
  return numbers;
}

// The list of objects under the key; empty where the key is missing.
Json object_list(const Json& json, const char* key, const std::string& place) {
  const auto found = json.find(key);
  if (found == json.end()) return Json::array();
  MT_CHECK_INPUT(found->is_array(), place, ": ", key, " is no list");
  for (const Json& value : *found)
    MT_CHECK_INPUT(value.is_object(), place, ": ", key, " holds something that is no object");
  return *found;
}

Json to_json(const RouterBalance& balance) {
  Json out{{"max_load", number_to_json(balance.max_load)},
           {"mean_load", number_to_json(balance.mean_load)},
           {"idle_share", number_to_json(balance.idle_share)}};
  add_optional(out, "entropy", balance.entropy);
  if (balance.num_dead) out["num_dead"] = *balance.num_dead;
  for (const LayerLoad& layer : balance.layers) {
    Json load = Json::array();
    for (const double share : layer.load) load.push_back(number_to_json(share));
    out["layers"].push_back({{"layer", layer.layer},
                             {"load", std::move(load)},
                             {"num_dead", layer.num_dead},
                             {"entropy", number_to_json(layer.entropy)},
                             {"imbalance", number_to_json(layer.imbalance)}});
  }
  return out;
}

RouterBalance parse_router_balance(const Json& json, const std::string& place) {
  MT_CHECK_INPUT(json.is_object(), place, ": router_balance is not an object");
  RouterBalance balance;
  balance.max_load = required_number(json, "max_load", place);
  balance.mean_load = required_number(json, "mean_load", place);
  balance.idle_share = required_number(json, "idle_share", place);
  balance.entropy = optional_number(json, "entropy", place);
  if (json.contains("num_dead")) balance.num_dead = required_integer(json, "num_dead", place);
  for (const Json& entry : object_list(json, "layers", place)) {
    LayerLoad& layer = balance.layers.emplace_back();
    layer.layer = required_integer(entry, "layer", place);
    layer.load = number_list(entry, "load", place);
    layer.num_dead = required_integer(entry, "num_dead", place);
    layer.entropy = required_number(entry, "entropy", place);
    layer.imbalance = required_number(entry, "imbalance", place);
  }
  return balance;
}

Json to_json(const Rewards& rewards) {
  return {{"chosen", number_to_json(rewards.chosen)},
          {"rejected", number_to_json(rewards.rejected)},
          {"accuracies", number_to_json(rewards.accuracies)},
          {"margins", number_to_json(rewards.margins)}};
}

std::optional<Rewards> optional_rewards(const Json& json, const char* key,
                                        const std::string& place) {
  const auto found = json.find(key);
  if (found == json.end()) return std::nullopt;
  MT_CHECK_INPUT(found->is_object(), place, ": ", key, " is not an object");
  return Rewards{.chosen = required_number(*found, "chosen", place),
                 .rejected = required_number(*found, "rejected", place),
                 .accuracies = required_number(*found, "accuracies", place),
                 .margins = required_number(*found, "margins", place)};
}

Json to_json(const SampleAnswer& sample) {
  return {{"prompt", sample.prompt}, {"answer", sample.answer}, {"in_data", sample.in_data}};
}

SampleAnswer parse_sample(const Json& json, const std::string& place) {
  const auto text = [&](const char* key) {
    const auto found = json.find(key);
    MT_CHECK_INPUT(found != json.end() && found->is_string(), place, ": ", key, " is no text");
    return found->get<std::string>();
  };
  return {text("prompt"), text("answer"), text("in_data")};
}

Json to_json(const ActivationMemory& memory) {
  Json kept = Json::array();
  for (const ActivationBytes& entry : memory.kept)
    kept.push_back({{"purpose", entry.purpose}, {"bytes", entry.bytes}});
  return {{"kept", std::move(kept)}, {"peak_bytes", memory.peak_bytes}};
}

ActivationMemory parse_activation_memory(const Json& json, const std::string& place) {
  MT_CHECK_INPUT(json.is_object(), place, ": activation_memory is not an object");
  ActivationMemory memory;
  for (const Json& entry : object_list(json, "kept", place)) {
    const auto purpose = entry.find("purpose");
    MT_CHECK_INPUT(purpose != entry.end() && purpose->is_string(), place, ": purpose is no text");
    memory.kept.push_back({purpose->get<std::string>(), required_integer(entry, "bytes", place)});
  }
  memory.peak_bytes = required_integer(json, "peak_bytes", place);
  return memory;
}

}  // namespace

std::optional<double> validation_perplexity(const StepRecord& record) {
  if (!record.validation_loss || record.validation_rewards) return std::nullopt;
  return std::exp(*record.validation_loss);
}

Json number_to_json(double value) {
  if (std::isfinite(value)) return value;
  if (std::isnan(value)) return "nan";
  return value > 0 ? "inf" : "-inf";
}

std::string to_json_line(const StepRecord& record) {
  Json out;
  out["step"] = record.step;
  out["loss"] = number_to_json(record.loss);
  if (record.rewards) out["rewards"] = to_json(*record.rewards);
  add_optional(out, "aux_loss", record.aux_loss);
  add_optional(out, "grad_norm", record.grad_norm);
  add_optional(out, "params_norm", record.params_norm);
  if (record.num_zeros_in_grad) out["num_zeros_in_grad"] = *record.num_zeros_in_grad;
  out["lr"] = number_to_json(record.lr);
  out["tokens_per_second"] = number_to_json(record.tokens_per_second);
  out["tflops_per_second"] = number_to_json(record.tflops_per_second);
  add_optional(out, "mfu", record.mfu);
  out["memory_bytes"] = record.memory_bytes;
  out["seconds"] = number_to_json(record.seconds);
  out["consumed_samples"] = record.consumed_samples;
  add_optional(out, "validation_loss", record.validation_loss);
  add_optional(out, "validation_perplexity", validation_perplexity(record));
  if (record.validation_rewards) out["validation_rewards"] = to_json(*record.validation_rewards);
  for (const SampleAnswer& sample : record.samples) out["samples"].push_back(to_json(sample));
  if (record.router_balance) out["router_balance"] = to_json(*record.router_balance);
  if (record.activation_memory) out["activation_memory"] = to_json(*record.activation_memory);
  if (record.receipt) out["receipt"] = to_json(*record.receipt);
  for (const SaveRecord& save : record.saves) out["saves"].push_back(to_json(save));
  if (record.resume_repeats) out["resume_repeats"] = *record.resume_repeats;
  return out.dump();
}

StepRecord parse_step_record(std::string_view line, const std::string& place) {
  const Json json = parse_json(line, place);
  MT_CHECK_INPUT(json.is_object(), place, ": a JSON object is expected");
  StepRecord record;
  record.step = required_integer(json, "step", place);
  record.loss = required_number(json, "loss", place);
  record.rewards = optional_rewards(json, "rewards", place);
  record.aux_loss = optional_number(json, "aux_loss", place);
  record.grad_norm = optional_number(json, "grad_norm", place);
  record.params_norm = optional_number(json, "params_norm", place);
  if (json.contains("num_zeros_in_grad"))
    record.num_zeros_in_grad = required_integer(json, "num_zeros_in_grad", place);
  record.lr = required_number(json, "lr", place);
  record.tokens_per_second = required_number(json, "tokens_per_second", place);
  record.tflops_per_second = required_number(json, "tflops_per_second", place);
  record.mfu = optional_number(json, "mfu", place);
  record.memory_bytes = required_integer(json, "memory_bytes", place);
  record.seconds = required_number(json, "seconds", place);
  record.consumed_samples = required_integer(json, "consumed_samples", place);
  record.validation_loss = optional_number(json, "validation_loss", place);
  record.validation_rewards = optional_rewards(json, "validation_rewards", place);
  for (const Json& sample : object_list(json, "samples", place))
    record.samples.push_back(parse_sample(sample, place));
  if (const auto found = json.find("router_balance"); found != json.end())
    record.router_balance = parse_router_balance(*found, place);
  if (const auto found = json.find("activation_memory"); found != json.end())
    record.activation_memory = parse_activation_memory(*found, place);
  if (const auto found = json.find("receipt"); found != json.end())
    record.receipt = parse_bit_receipt(*found, place);
  for (const Json& save : object_list(json, "saves", place))
    record.saves.push_back(parse_save_record(save, place));
  if (json.contains("resume_repeats"))
    record.resume_repeats = required_integer(json, "resume_repeats", place);
  return record;
}

}  // namespace moetron
