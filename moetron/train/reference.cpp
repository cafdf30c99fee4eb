#include "moetron/train/reference.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <span>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/hash.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/base/seconds_since.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/data/conversation_dataset.h"
#include "moetron/metrics/step_printer.h"
#include "moetron/train/first_weights.h"
#include "moetron/train/long_work.h"
#include "moetron/train/train_step.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr int kReferenceVersion = 1;
constexpr size_t kKeyDigits = 16;

std::string short_hash(const std::string& text) {
  return hash_hex(std::as_bytes(std::span(text))).substr(0, kKeyDigits);
}

// Every byte counts, but of a checkpoint, whose manifest holds the hashes of all its files: models
// that were tuned from one have files of the same names and sizes.
std::string content_of(const fs::path& folder) {
  if (path_exists(folder / "manifest.json"))
    return concat("checkpoint ", short_hash(read_file(folder / "manifest.json")));
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string all;
  for (const fs::path& file : files)
    all += concat(file.filename().string(), " ", hash_hex(MappedFile(file).bytes()), "\n");
  return concat(files.size(), " files of weights ", short_hash(all));
}

Json describe(const RunStart& start, Communicator& world) {
  std::string content;
  on_rank_zero_for_long(&world, [&] {
    content = content_of(start.weights);
    if (start.stored.layers) content += concat(", layers ", range_text(*start.stored.layers));
    if (!start.adapter.empty()) content += concat(", adapter ", content_of(start.adapter));
  });
  const fs::path& place = start.adapter.empty() ? start.weights : start.adapter;
  return {{"place", place.string()}, {"content", gather_texts(world, content)[0]}};
}

// What the checkpoint that is continued noted; null where its run compared with nothing.
Json noted_reference(const RunStart& start, Communicator& world) {
  const Json trainer = load_checkpoint(start.resume->folder, {}, {}, &world);
  const Json files = trainer.value("files", Json());
  const Json noted = files.is_object() ? files.value("reference", Json()) : Json();
  const auto is_text = [&](const char* key) { return noted.value(key, Json()).is_string(); };
  MT_CHECK_INPUT(noted.is_null() || (noted.is_object() && is_text("place") && is_text("content")),
                 (start.resume->folder / kTrainerFile).string(),
                 ": files does not tell of reference its place and its content");
  return noted;
}

// The weights in a run's folder lie a level deeper.
bool is_place(const std::string& place, const fs::path& asked) {
  const fs::path folder = (asked / "").parent_path();  // without a slash at its end
  return place == folder || fs::path(place).parent_path() == folder;
}

std::string hash_of_values(const std::vector<double>& values) {
  return hash_hex(std::as_bytes(std::span(values)));
}

// Empty where the file is not one that References wrote, whole, for so many conversations.
std::vector<double> read_values(const fs::path& file, size_t count) {
  if (!path_exists(file)) return {};
  try {
    const Json json = read_json(file);
    std::vector<double> values;
    for (const Json& value : json.at("log_probabilities"))
      values.push_back(value.is_null() ? std::numeric_limits<double>::quiet_NaN()
                                       : value.get<double>());
    MT_CHECK_INPUT(json.at("version") == kReferenceVersion && values.size() == count &&
                       json.at("hash") == hash_of_values(values),
                   file.string(), " is not what was written");
    return values;
  } catch (const Json::exception& error) {
    log_info(concat("data-cache-path: ", file.string(), " is made anew: ", error.what()));
  } catch (const InputError& error) {
    log_info(concat("data-cache-path: made anew: ", error.what()));
  }
  return {};
}

// InputError where the weights have changed since they were described, or are gone.
void load_reference(const Json& description, const RunSpec& spec, Model& model,
                    Communicator& world) {
  const auto place = description.at("place").get<std::string>();
  RunStart start;
  on_all_ranks(&world, [&] {
    MT_CHECK_INPUT(path_exists(place), "load: ", place,
                   " is gone, whose log-probabilities are to be computed again");
    start = start_with_weights(spec.start, place);
    return 0;
  });
  const Json found = describe(start, world);
  MT_CHECK_INPUT(
      found.at("content") == description.at("content"), "load: the weights in ", place,
      " are not those that the run was begun with: ", found.at("content").get<std::string>(),
      ", not ", description.at("content").get<std::string>());
  load_first_weights(start, static_cast<uint64_t>(spec.seed), model, world);
}

}  // namespace

Json describe_reference(const RunStart& start, const StartSpec& spec, Communicator& world) {
  if (!start.resume) return describe(start, world);
  const Json noted = noted_reference(start, world);
  if (noted.is_object() && (spec.load.empty() || spec.load == spec.save ||
                            is_place(noted.at("place").get<std::string>(), spec.load)))
    return noted;
  MT_CHECK_CONFIG(!spec.load.empty(),
                  "load: objective (dpo) compares with the model that it names, and none is given");
  const Json asked = describe(start_with_weights(spec, newest_weights(spec.load)), world);
  MT_CHECK_CONFIG(noted.is_null() || noted.at("content") == asked.at("content"), "load (",
                  spec.load, "): the run in save (", spec.save, ") compares with ",
                  noted.is_null() ? "" : noted.at("place").get<std::string>(),
                  ", whose weights are others; name that, or another save");
  return asked;
}

References::References(std::shared_ptr<const ConversationSet> set, std::vector<int32_t> lengths,
                       int64_t sequence_length, std::string data_key, fs::path folder)
    : set_(std::move(set)),
      lengths_(std::move(lengths)),
      sequence_length_(sequence_length),
      data_key_(std::move(data_key)),
      folder_(std::move(folder)),
      is_needed_(lengths_.size(), false),
      values_(std::make_shared<std::vector<double>>(lengths_.size(),
                                                    std::numeric_limits<double>::quiet_NaN())) {}

void References::need(const PackList& packs) {
  for (int64_t i = 0; i < packs.size(); ++i)
    for (const int64_t one : packs[i]) is_needed_[static_cast<size_t>(one)] = true;
}

std::string References::prepare(const Run& run) {
  if (!read(run.description, run.spec, run.batches, run.world)) {
    if (!run.is_loaded) load_reference(run.description, run.spec, run.model, run.world);
    compute(run.train_step, run.batches, run.world);
  }
  return "\nreference " + description();
}

std::vector<int64_t> References::missing() const {
  std::vector<int64_t> found;
  for (size_t i = 0; i < is_needed_.size(); ++i)
    if (is_needed_[i] && std::isnan((*values_)[i])) found.push_back(static_cast<int64_t>(i));
  return found;
}

bool References::read(const Json& description, const RunSpec& spec, const BatchSettings& batches,
                      Communicator& world) {
  place_ = description.at("place").get<std::string>();
  std::string key = concat(data_key_, "\n", description.at("content").get<std::string>(), "\n",
                           static_cast<int>(spec.dtype), batches.device.is_cuda() ? " GPU" : "");
  if (spec.fp8) key += concat(" fp8 ", spec.fp8->first_layer, " ", spec.fp8->end_layer);
  file_ = folder_ / concat("reference-", short_hash(key), ".json");
  at::Tensor values = at::tensor(*values_, at::kDouble);
  on_rank_zero(&world, [&] {
    const std::vector<double> known = read_values(file_, values_->size());
    if (!known.empty()) values = at::tensor(known, at::kDouble);
    return 0;
  });
  if (world.size() > 1) {
    values = values.to(batches.device);
    world.broadcast(values, 0).wait();
    values = values.cpu();
  }
  std::copy_n(values.const_data_ptr<double>(), values_->size(), values_->begin());
  return missing().empty();
}

void References::compute(TrainStep& train_step, const BatchSettings& batches, Communicator& world) {
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<int64_t> asked = missing();
  log_info(concat("before training: the log-probabilities of ", asked.size(), " answers under ",
                  place_, ", for comparison"));
  PackList packs;
  for (const int64_t& one : asked) packs.add(std::span(&one, 1));
  const int64_t batch = batches.global_batch_size;
  const ConversationDataset dataset(
      set_, lengths_, packs.first((packs.size() + batch - 1) / batch * batch), sequence_length_);
  const std::vector<double> found = train_step.log_probabilities(dataset, batches);
  for (size_t i = 0; i < asked.size(); ++i) {
    const auto line = [&] { return set_->line(asked[i]); };
    MT_CHECK_CONFIG(std::isfinite(found[i]), "load (", place_,
                    "): the reference's log-probability of an answer in line ", line(),
                    " of data-path is not finite");
    (*values_)[static_cast<size_t>(asked[i])] = found[i];
  }
  num_computed_ = static_cast<int64_t>(asked.size());
  seconds_ = seconds_since(begin);
  on_rank_zero(&world, [&] {
    Json values = Json::array();
    for (const double value : *values_) values.push_back(std::isnan(value) ? Json() : Json(value));
    write_file(file_, Json{{"version", kReferenceVersion},
                           {"hash", hash_of_values(*values_)},
                           {"log_probabilities", std::move(values)}}
                              .dump() +
                          "\n");
    return 0;
  });
}

std::string References::description() const {
  const auto needed = std::count(is_needed_.begin(), is_needed_.end(), true);
  std::string text = concat(place_, ", for ", needed, " answers");
  if (num_computed_ == 0) return concat(text, ", from ", file_.string());
  return concat(text, ", ", num_computed_, " computed in ", readable_number(seconds_), " s, in ",
                file_.string());
}

}  // namespace moetron
