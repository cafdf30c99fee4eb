#include "moetron/convert/convert_model.h"

#include <chrono>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "moetron/arch/quantization.h"
#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/path.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/convert/fp8_source.h"
#include "moetron/convert/model_config_text.h"
#include "moetron/convert/model_source.h"
#include "moetron/convert/typed_source.h"
#include "moetron/convert/verify_copy.h"
#include "moetron/convert/write_model.h"
#include "moetron/formats/manifest.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The sources on top of each other that make a model's weights what is written, and its config.
class Conversion {
 public:
  Conversion(const ModelContent& content, WeightDtype dtype) : config_(content.config) {
    const TensorSource* source = &content.weights;
    const bool is_in_8_bits = has_scales(*source);
    const bool stays =
        dtype == WeightDtype::kStored || (dtype == WeightDtype::kFp8 && is_in_8_bits);
    if (!stays) {
      JsonFields fields(config_, content.place);
      fields.set_nullable({"quantization_config"});
      check_quantization(fields);
      if (is_in_8_bits) source = add<Fp8Source>(*source, content.place);
      if (dtype == WeightDtype::kFp8) {
        source = add<Fp8Target>(*source);
        config_ = with_fp8(std::move(config_));
      } else {
        source = add<TypedSource>(*source, stored_type(dtype));
        config_ = with_dtype(std::move(config_), stored_type(dtype));
      }
    }
    result_ = source;
  }

  const TensorSource& weights() const { return *result_; }
  const Json& config() const { return config_; }

 private:
  static SafetensorsDtype stored_type(WeightDtype dtype) {
    if (dtype == WeightDtype::kBf16) return SafetensorsDtype::kBF16;
    return dtype == WeightDtype::kFp16 ? SafetensorsDtype::kF16 : SafetensorsDtype::kF32;
  }

  template <class Source, class... Args>
  const TensorSource* add(Args&&... args) {
    layers_.push_back(std::make_unique<Source>(std::forward<Args>(args)...));
    return layers_.back().get();
  }

  Json config_;
  std::vector<std::unique_ptr<TensorSource>> layers_;
  const TensorSource* result_ = nullptr;
};

uint64_t bytes_of(const TensorSource& weights) {
  uint64_t bytes = 0;
  for (const SafetensorsTensor& tensor : weights.tensors())
    bytes += tensor_bytes(tensor.dtype, tensor.shape).value_or(0);
  return bytes;
}

// The folder that `save` is made in.
fs::path prepare(const fs::path& save, uint64_t bytes) {
  const fs::path parent = save.has_parent_path() ? save.parent_path() : ".";
  try {
    const fs::file_type type = fs::symlink_status(save).type();
    const bool is_free = type == fs::file_type::not_found ||
                         (type == fs::file_type::directory && fs::is_empty(save));
    MT_CHECK_CONFIG(is_free, "save: ", save.string(),
                    " is there already: name another folder, or remove it");
    fs::create_directories(parent);
    const uint64_t available = fs::space(parent).available;
    MT_CHECK_CONFIG(bytes <= available, "save: ", save.string(), " needs ", bytes, " bytes, ",
                    available, " are free");
  } catch (const fs::filesystem_error& error) {
    throw ConfigError(concat("save: cannot write ", save.string(), ": ", error.code().message()));
  }
  return parent;
}

void write_small_files(const fs::path& folder, const Json& config, std::vector<CompanionFile> files,
                       std::vector<ManifestFile>& written) {
  files.push_back({kConfigFile, config.dump(2) + "\n"});
  for (const CompanionFile& file : files) {
    fs::create_directories((folder / file.name).parent_path());
    write_file(folder / file.name, file.text);
    written.push_back(hash_bytes(file.name, std::as_bytes(std::span(file.text))));
  }
}

std::function<void(uint64_t, uint64_t)> progress_of(const ConvertSettings& settings,
                                                    const char* what) {
  if (!settings.progress) return {};
  return [&settings, what](uint64_t done, uint64_t total) { settings.progress(what, done, total); };
}

}  // namespace

ConvertReport write_hf_model(const ModelContent& content, const fs::path& given_save,
                             const ConvertSettings& settings) {
  const auto begin = Clock::now();
  // "out/" is "out".
  const fs::path save = given_save.has_filename() ? given_save : given_save.parent_path();
  const Conversion conversion(content, settings.dtype);
  const TensorSource& weights = conversion.weights();
  ConvertReport report{.num_tensors = weights.tensors().size(), .bytes = bytes_of(weights)};
  const TemporaryFolder hidden("convert", prepare(save, report.bytes));
  const fs::path folder = hidden.path() / "model";  // which gets the usual permissions
  fs::create_directory(folder);
  std::vector<ManifestFile> written = write_model(
      weights, folder,
      {settings.shard_bytes, settings.num_threads, progress_of(settings, "writes block")});
  for (const ManifestFile& file : written) report.num_files += file.name != kIndexFile;
  write_small_files(folder, conversion.config(), content.companions, written);
  write_manifest(folder, std::move(written), Json::object());
  sync_folder(folder);
  report.seconds = seconds_since(begin);
  if (settings.verify) {
    verify_copy(weights, ModelSource(folder), settings.num_threads,
                progress_of(settings, "verifies block"));
    report.verify_seconds = seconds_since(begin) - report.seconds;
  }
  rename_durable(folder, save);
  return report;
}

ConvertReport convert_hf_model(const fs::path& load, const fs::path& save,
                               const ConvertSettings& settings) {
  const fs::path path = load / kConfigFile;
  MT_CHECK_INPUT(path_exists(path), "load: ", load.string(), " holds no config.json");
  const Json config = read_json(path);
  MT_CHECK_INPUT(config.is_object(), path.string(), " is no JSON object");
  const ModelSource source(load);
  std::vector<CompanionFile> companions = read_tokenizer_files(load);
  add_companions(companions, read_model_companions(load));
  return write_hf_model({source, config, std::move(companions), path.string()}, save, settings);
}

}  // namespace moetron
