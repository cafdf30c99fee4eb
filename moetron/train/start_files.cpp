#include "moetron/train/start_files.h"

#include <algorithm>
#include <span>

#include <nlohmann/json.hpp>

#include "moetron/base/file.h"
#include "moetron/base/hash.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/comm/communicator.h"
#include "moetron/data/blend.h"
#include "moetron/formats/indexed_dataset.h"
#include "moetron/train/conversations.h"
#include "moetron/train/reference.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr size_t kShownDigits = 16;

std::string digest(const std::string& text) {
  return hash_hex(std::as_bytes(std::span(text))).substr(0, kShownDigits);
}

std::string describe_data(const std::string& prefix) {
  const IndexedDataset data(prefix);
  return concat(data.num_documents(), " documents, ", data.num_tokens(), " tokens, index ",
                data.fingerprint().substr(0, kShownDigits), ", sample ",
                data.sample_fingerprint().substr(0, kShownDigits));
}

std::vector<DescribedFile> describe_token_files(const DataSpec& data) {
  const DataBlend blend = data.mock ? DataBlend() : parse_blend(data.path);
  std::vector<DescribedFile> parts;
  for (size_t i = 0; i < blend.prefixes.size(); ++i) {
    std::string content = describe_data(blend.prefixes[i]);
    if (!blend.weights.empty()) content += concat(", weight ", blend.weights[i]);
    parts.push_back({blend.prefixes[i], std::move(content)});
  }
  return parts;
}

std::string describe_tokenizer(const std::vector<CompanionFile>& files) {
  std::string all;
  for (const CompanionFile& file : files)
    all += concat(file.name, "\n", file.text.size(), "\n") + file.text;
  return concat(files.size(), " files of ", digest(all));
}

// A checkpoint is told by its manifest, which holds the hashes of all files.
std::string describe_model(const fs::path& folder) {
  if (path_exists(folder / "manifest.json"))
    return concat("checkpoint ", digest(read_file(folder / "manifest.json")));
  if (!path_exists(folder / "config.json")) {
    uint64_t bytes = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.is_regular_file()) bytes += entry.file_size();
    return concat("Megatron's files of ", bytes, " bytes");
  }
  std::vector<std::string> weights;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    weights.push_back(concat(entry.path().filename().string(), " ", entry.file_size()));
  }
  std::sort(weights.begin(), weights.end());
  std::string all;
  for (const std::string& file : weights) all += file + "\n";
  const fs::path index = folder / "model.safetensors.index.json";
  if (path_exists(index)) all += read_file(index);
  return concat("config.json ", digest(read_file(folder / "config.json")), ", ", weights.size(),
                " files of weights ", digest(all));
}

}  // namespace

Json describe_files(const RunStart& start, const StartSpec& spec, const DataSpec& data,
                    const Conversations* conversations, Communicator& world) {
  Json files = Json::object();
  const auto add = [&](const std::string& name, const std::string& place, std::string content) {
    files[name] = {{"place", place}, {"content", std::move(content)}};
  };
  on_all_ranks(&world, [&] {
    const std::vector<DescribedFile> parts =
        conversations != nullptr ? conversations->files() : describe_token_files(data);
    for (size_t i = 0; i < parts.size(); ++i) {
      add(parts.size() == 1 ? "data-path" : concat("data-path, part ", i + 1), parts[i].place,
          parts[i].content);
    }
    if (!start.tokenizer_files.empty()) {
      add("tokenizer-model", start.tokenizer_folder.string(),
          describe_tokenizer(start.tokenizer_files));
    }
    const fs::path model = start.model_folder();
    if (!model.empty()) add("model", model.string(), describe_model(model));
    return 0;
  });
  if (conversations != nullptr && conversations->has_pairs())
    files["reference"] = describe_reference(start, spec, world);
  return files;
}

}  // namespace moetron
