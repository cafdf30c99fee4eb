// moetron convert: a model in one format or type into another.
#include <cstdio>
#include <optional>
#include <string_view>

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/file_work.h"
#include "moetron/convert/convert_megatron.h"
#include "moetron/convert/layers_source.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/merge_adapter.h"
#include "moetron/run/pipeline_from_options.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

// "5GB" in bytes.
uint64_t parse_shard_size(const std::string& text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr Unit kUnits[] = {{"MB", 1e6},        {"GB", 1e9},           {"TB", 1e12},
                             {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0}};
  std::string_view unit = text;
  const auto number = take_number<double>(unit);
  for (const Unit& known : kUnits) {
    if (number && unit == known.name && *number > 0 && *number * known.bytes < 1e18)
      return static_cast<uint64_t>(*number * known.bytes);
  }
  throw ConfigError(
      concat("shard-size (", text, ") must be a number above 0 with MB, GB, TB, MiB, GiB or TiB"));
}

void say_report(const ConvertReport& report, const std::string& save) {
  const double gigabytes = static_cast<double>(report.bytes) / 1e9;
  std::printf("wrote %s: %llu tensors, %.3f GB in %d file%s, %.1f s (%.2f GB/s)\n", save.c_str(),
              static_cast<unsigned long long>(report.num_tensors), gigabytes, report.num_files,
              report.num_files == 1 ? "" : "s", report.seconds, gigabytes / report.seconds);
  if (report.verify_seconds > 0)
    std::printf("read it again: the same bits (%.1f s)\n", report.verify_seconds);
}

// Whether load is of one of Megatron's formats. InputError where it is not of that which is named.
bool is_megatron(const Options& options) {
  const std::filesystem::path load = options.checkpoint.load;
  const bool is_sharded = is_torch_dist_folder(load);
  if (!options.convert.from) return is_sharded || is_megatron_folder(load);
  MT_CHECK_INPUT(*options.convert.from != ModelFormat::kTorchDist || is_sharded,
                 "from (torch-dist): ", load.string(), " holds no ", kDistMetadataFile,
                 ", nor a folder that does and that ", kLatestFile, " names");
  MT_CHECK_INPUT(*options.convert.from != ModelFormat::kMegatron || !is_sharded,
                 "from (megatron): ", load.string(),
                 " holds Megatron's sharded format: it is from (torch-dist)");
  return *options.convert.from != ModelFormat::kHf;
}

// --merge-adapter itself, or the newest checkpoint in it.
std::filesystem::path adapter_folder(const std::string& given, Verify verify) {
  if (!holds_adapter(given)) {
    const auto found = find_latest(given, nullptr, verify);
    MT_CHECK_INPUT(found && holds_adapter(found->folder), "merge-adapter: ", given,
                   " holds no adapter_config.json");
    return found->folder;
  }
  check_model_files(given, nullptr, verify);
  return given;
}

LoadedModel open_model(const Options& options) {
  const std::filesystem::path load = options.checkpoint.load;
  const Verify verify = verification(resolve_start(options).verify);
  if (is_megatron(options)) {
    check_megatron_files(load, nullptr, verify);
    return open_megatron_model(load, options.convert.model_files);
  }
  check_model_files(load, nullptr, verify);
  return open_hf_model(load);
}

// The layout that a run of these options has: that of its stages, too.
MegatronLayout megatron_layout(const Options& options, const ModelConfig& config) {
  const ParallelOptions& parallel = options.parallel;
  // How many micro-batches there are changes no stage.
  const PipelineSettings pipeline =
      pipeline_settings(parallel, config.num_layers, 4 * parallel.pipeline_model_parallel_size);
  const Placement placement = placement_of(pipeline.request);
  MegatronLayout layout;
  layout.tp = parallel.tensor_model_parallel_size;
  layout.tpe = parallel.tensor_model_parallel_for_expert;
  layout.ep = parallel.expert_model_parallel_size;
  layout.pp = parallel.pipeline_model_parallel_size;
  layout.num_chunks = placement.num_chunks();
  layout.v_placement = placement.shape() == Placement::Shape::kV;
  for (const StageLayers& stage : pipeline.stages) layout.stage_layers.push_back(stage.count);
  layout.padded_vocab =
      padded_vocab_size(config, options.convert.make_vocab_size_divisible_by, layout.tp);
  layout.transformer_engine = options.kernels.transformer_impl != TransformerImpl::kLocal;
  layout.grouped_experts = options.moe.moe_grouped_gemm.value_or(false);
  return layout;
}

void say_left_out_of_load(const std::vector<std::string>& left_out) {
  if (left_out.empty()) return;
  std::printf("left out: %zu tensors of the optimizer, first %s\n", left_out.size(),
              left_out[0].c_str());
}

void say_left_out(const std::vector<std::string>& left_out) {
  if (left_out.empty()) return;
  std::printf("left out, for Megatron's model has no place for them: %zu tensors, first %s\n",
              left_out.size(), left_out[0].c_str());
}

}  // namespace

int run_convert(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  say_notices(parsed);
  validate(options, Command::kConvert, /*world_size=*/1);
  ConvertSettings settings;
  settings.dtype = options.convert.dtype;
  settings.shard_bytes = parse_shard_size(options.convert.shard_size);
  settings.num_threads = file_threads(options.runtime.num_threads);
  settings.verify = options.checkpoint.verify.value_or(false);
  BlockProgress progress;
  settings.progress = [&](const char* what, uint64_t done, uint64_t total) {
    progress.show(what, done, total);
  };
  LoadedModel model = open_model(options);
  say_left_out_of_load(model.left_out);
  std::optional<LayersSource> layers;
  if (const auto range = resolve_start(options).layers) {
    model.config = config_of_layers(model.config, *range, model.place);
    layers.emplace(*model.weights, *range);
  }
  std::optional<MergedWeights> merged;
  if (const std::string& given = options.convert.merge_adapter; !given.empty()) {
    const auto adapter = adapter_folder(given, verification(resolve_start(options).verify));
    const ModelConfig config = read_model_config(model.config, model.place);
    merged.emplace(*model.weights, read_adapter_config(adapter, config), adapter);
  }
  const TensorSource& weights = layers ? *layers : *model.weights;
  const ModelContent content{merged ? *merged : weights, model.config, model.companions,
                             model.place};
  const std::string& save = options.checkpoint.save;
  if (options.convert.to == ModelFormat::kHf) {
    const ConvertReport report = write_hf_model(content, save, settings);
    progress.hide();
    say_report(report, save);
    return kExitDone;
  }
  const MegatronLayout layout =
      megatron_layout(options, read_model_config(model.config, model.place));
  const MegatronConvertReport report = write_megatron_model(content, layout, save, settings);
  progress.hide();
  say_left_out(report.left_out);
  say_report(report, save);
  return kExitDone;
}

}  // namespace moetron
