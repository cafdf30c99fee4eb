// Which model a folder of weights holds, where its config.json alone does not tell.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "moetron/arch/layer_range.h"
#include "moetron/arch/model_config.h"

namespace moetron {

struct StoredModel {
  std::optional<LayerRange> layers;   // that are wanted of it; empty: all
  std::optional<ModelConfig> config;  // of all that is stored, where there is no config.json
  std::optional<int64_t> iteration;   // of Megatron's files; empty: the last that is noted
};

// The step, where it is an iteration of Megatron's in the folder and no checkpoint of ours; else
// nothing.
std::optional<int64_t> megatron_iteration(const std::filesystem::path& folder,
                                          std::optional<int64_t> step);

// What is to be known beside the folder's files: nothing where `layers` is empty and a config.json
// is there. Of Megatron's files without one, the shape that their own arguments tell, with
// `vocab_size` where that is given, for the arguments may know it padded alone; or nothing where
// they tell none. InputError where they tell what no family has, and where `layers` are wanted of a
// model that nothing tells of.
StoredModel describe_stored(const std::filesystem::path& folder,
                            const std::optional<LayerRange>& layers,
                            std::optional<int64_t> vocab_size,
                            std::optional<int64_t> iteration = {});

// The model that a run takes from the folder, where its config.json is not that model's, and what
// complaints call the place that tells it. Empty where the folder's config.json says it all, and
// where nothing does.
struct TakenModel {
  ModelConfig config;
  std::string place;
};
std::optional<TakenModel> taken_model(const std::filesystem::path& folder,
                                      const StoredModel& stored);

}  // namespace moetron
