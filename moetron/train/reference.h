// The model that preference tuning compares with: the one that --load names. It is only asked for
// the log-probabilities of the run's answers, once, by the ranks and the pipeline that train; then
// they lie in a file beside the cache of the data.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "moetron/base/json.h"
#include "moetron/data/conversation_set.h"
#include "moetron/data/packing.h"
#include "moetron/run/run_spec.h"
#include "moetron/train/batches.h"
#include "moetron/train/start.h"

namespace moetron {

class Communicator;
class Model;
class TrainStep;

// {"place": folder of the weights, "content": told by their bytes}, as describe_files() tells of
// others; of a run that is continued, what it noted when it began. Throws ConfigError where --load
// is missing, or names another model than the run was begun with. Collective over `world`.
Json describe_reference(const RunStart& start, const StartSpec& spec, Communicator& world);

class References {
 public:
  // `lengths`: of all conversations; `data_key` tells them apart from others; `folder` is for the
  // file.
  References(std::shared_ptr<const ConversationSet> set, std::vector<int32_t> lengths,
             int64_t sequence_length, std::string data_key, std::filesystem::path folder);

  // The run will read these.
  void need(const PackList& packs);
  // By conversation, the sum of its labels' log-probabilities; NaN where it is not known.
  std::shared_ptr<const std::vector<double>> values() const { return values_; }

  // What a run works with where it begins, or goes on.
  struct Run {
    const Json& description;  // describe_reference()
    const RunSpec& spec;
    const BatchSettings& batches;
    bool is_loaded;  // the model has the reference's weights; else it may be given them
    Model& model;
    TrainStep& train_step;
    Communicator& world;
  };
  // Knows all that is needed: from the file, or computed now and written to it. Returns a line for
  // the summary at the start. Collective.
  std::string prepare(const Run& run);

 private:
  // Takes what the file holds of the reference that is described, and returns whether that is all
  // that is needed. A damaged file is as none. Collective over `world`.
  bool read(const Json& description, const RunSpec& spec, const BatchSettings& batches,
            Communicator& world);
  // Has the model say the rest, whose weights are the reference's, and writes the file. Behind
  // read(). Collective over `world`.
  void compute(TrainStep& train_step, const BatchSettings& batches, Communicator& world);
  // "reference tiny: 16 answers, 12 of them from chats-....json"
  std::string description() const;
  std::vector<int64_t> missing() const;  // ascending

  std::shared_ptr<const ConversationSet> set_;
  std::vector<int32_t> lengths_;
  int64_t sequence_length_;
  std::string data_key_;
  std::filesystem::path folder_;
  std::filesystem::path file_;
  std::string place_;  // of the model
  std::vector<bool> is_needed_;
  std::shared_ptr<std::vector<double>> values_;
  int64_t num_computed_ = 0;
  double seconds_ = 0;  // that it took
};

}  // namespace moetron
