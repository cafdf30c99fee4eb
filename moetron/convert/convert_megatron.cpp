#include "moetron/convert/convert_megatron.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <nlohmann/json.hpp>

#include "moetron/arch/config_reader.h"
#include "moetron/arch/config_writer.h"
#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/base/path.h"
#include "moetron/base/seconds_since.h"
#include "moetron/convert/chosen_tensors.h"
#include "moetron/convert/converted_weights.h"
#include "moetron/convert/fp8_source.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_shape.h"
#include "moetron/convert/megatron_source.h"
#include "moetron/convert/torch_dist_source.h"
#include "moetron/convert/verify_copy.h"
#include "moetron/convert/write_megatron.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// A source without some of its tensors.
class PartOfSource : public ChosenTensors {
 public:
  // `left_out` is sorted.
  PartOfSource(const TensorSource& source, const std::vector<std::string>& left_out)
      : ChosenTensors(source) {
    for (size_t i = 0; i < all().size(); ++i)
      if (!std::ranges::binary_search(left_out, all()[i].name)) choose(i, all()[i]);
  }
};

// Without the weights.
LoadedModel read_told_model(const fs::path& load, const fs::path& config_folder) {
  const fs::path folder = config_folder.empty() ? load : config_folder;
  const fs::path path = folder / kConfigFile;
  const bool is_there = path_exists(path);
  MT_CHECK_INPUT(is_there || config_folder.empty(), path.string(),
                 " is not there: model-files names the folder of the model's config.json");
  if (is_there) return read_model_folder(folder);
  const auto config = model_from_args(load);
  MT_CHECK_INPUT(config, load.string(),
                 " has no config.json, and its args do not tell the model: name the folder of the "
                 "model's config.json (model-files)");
  return {.weights = nullptr,
          .config = write_model_config(*config),
          .companions = read_small_files(load),
          .place = arguments_file(load).string()};
}

}  // namespace

LoadedModel open_megatron_model(const fs::path& load, const fs::path& config_folder) {
  LoadedModel model = read_told_model(load, config_folder);
  const ModelConfig config = read_model_config(model.config, model.place);
  if (is_torch_dist_folder(load)) {
    auto source = std::make_unique<TorchDistSource>(load, config);
    model.left_out = source->left_out();
    model.weights = std::move(source);
  } else {
    model.weights = std::make_unique<MegatronSource>(load, config);
  }
  return model;
}

MegatronConvertReport write_megatron_model(const ModelContent& content,
                                           const MegatronLayout& layout, const fs::path& save,
                                           const ConvertSettings& settings) {
  const auto begin = Clock::now();
  MT_CHECK_CONFIG(
      settings.dtype != WeightDtype::kFp8,
      "dtype (fp8) does not go with megatron, whose weights have no scales beside them");
  const bool needs_type = settings.dtype == WeightDtype::kStored && has_scales(content.weights);
  const ConvertedWeights converted(content, needs_type ? WeightDtype::kBf16 : settings.dtype);
  const ModelConfig config = read_model_config(converted.config(), content.place);
  std::vector<CompanionFile> files = content.companions;
  files.push_back({kConfigFile, converted.config().dump(2) + "\n"});
  const auto progress = [&settings](const char* what) {
    return [&settings, what](uint64_t done, uint64_t total) {
      if (settings.progress) settings.progress(what, done, total);
    };
  };
  MegatronConvertReport report;
  const auto verify = [&](const fs::path& folder, const MegatronReport& written) {
    report.seconds = seconds_since(begin);
    if (!settings.verify) return;
    const MegatronSource read(folder, config);
    verify_copy(PartOfSource(converted.weights(), written.left_out),
                PartOfSource(read, written.left_out), settings.num_threads,
                progress("verifies block"));
    report.verify_seconds = seconds_since(begin) - report.seconds;
  };
  const MegatronReport written =
      write_megatron(converted.weights(), config, layout, files, save,
                     {settings.num_threads, progress("writes block"), verify});
  report.num_tensors = converted.weights().tensors().size() - written.left_out.size();
  report.bytes = written.bytes;
  report.num_files = written.num_files;
  report.left_out = written.left_out;
  return report;
}

}  // namespace moetron
