// Dumps what this folder and formats/ build, for tests/oracles/data_oracle.py to compare.
//   data_tool shuffle SEED COUNT OUT.npy
//   data_tool gpt OUT_FOLDER SPLIT SEQUENCE SEED TRAIN VALID TEST EOD PATH...
//   data_tool safetensors IN OUT
//   data_tool lines IN.jsonl OUT_PREFIX    (documents of bytes, without bad lines)
//   data_tool verdicts FOLDER OUT.npy   (1 for each valid safetensors file 0, 1, 2, ... of FOLDER)
#include <cstdio>
#include <exception>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/data/blend.h"
#include "moetron/data/numpy_random.h"
#include "moetron/data/preprocess.h"
#include "moetron/formats/npy.h"
#include "moetron/formats/safetensors.h"
#include "moetron/formats/safetensors_writer_test.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

using Words = std::vector<std::string>;

void shuffle(const Words& words) {
  std::vector<int64_t> values(std::stoul(words.at(1)));
  std::iota(values.begin(), values.end(), 0);
  NumpyRandom(static_cast<uint32_t>(std::stoul(words.at(0)))).shuffle(std::span(values));
  write_npy<int64_t>(words.at(2), values, {static_cast<int64_t>(values.size())});
}

// One row a sample: tokens, labels, loss mask, positions, then 1 where a document begins.
void dump_samples(const TokenDataset& dataset, const std::string& path) {
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const TokenSample sample = dataset.get(i);
    rows.insert(rows.end(), sample.tokens.begin(), sample.tokens.end());
    rows.insert(rows.end(), sample.labels.begin(), sample.labels.end());
    for (const float mask : sample.loss_weights) rows.push_back(static_cast<int32_t>(mask));
    rows.insert(rows.end(), sample.positions.begin(), sample.positions.end());
    std::vector<int32_t> starts(sample.tokens.size() + 1);
    for (const int32_t bound : sample.document_bounds) starts.at(static_cast<size_t>(bound)) += 1;
    MT_CHECK(starts.back() == 1, "the bounds must end with the length");
    rows.insert(rows.end(), starts.begin(), starts.end() - 1);
  }
  write_npy<int32_t>(path, rows, {dataset.size(), 5 * dataset.sequence_length()});
}

void gpt(const Words& words) {
  const std::string& out = words.at(0);
  GptDatasetSettings settings;
  settings.sequence_length = std::stol(words.at(2));
  settings.seed = static_cast<uint32_t>(std::stoul(words.at(3)));
  std::array<std::vector<int64_t>, 3> counts;
  for (size_t i = 0; i < 3; ++i) counts[i] = {std::stol(words.at(4 + i))};
  if (words.at(7) != "none") {
    settings.eod_id = std::stoi(words.at(7));
    settings.eod_mask_loss = true;
    settings.reset_position_ids = true;
  }
  settings.reset_attention_mask = true;
  settings.cache_folder = out + "/cache";
  const Words paths(words.begin() + 8, words.end());
  const char* names[3] = {"train", "valid", "test"};
  const auto splits = build_gpt_datasets(parse_blend(paths), words.at(1), counts, settings);
  for (size_t i = 0; i < 3; ++i)
    if (splits[i]) dump_samples(*splits[i], out + "/" + names[i] + ".npy");
}

void copy_safetensors(const Words& words) {
  const SafetensorsFile in(words.at(0));
  // Not in file order: the writer finds that by itself.
  std::vector<SafetensorsTensor> tensors(in.tensors().rbegin(), in.tensors().rend());
  SafetensorsWriter out(words.at(1), std::move(tensors), in.metadata());
  for (const SafetensorsEntry& tensor : out.tensors())
    out.write(tensor.name, in.bytes(in.at(tensor.name)));
  out.commit();
}

void verdicts(const Words& words) {
  std::vector<int32_t> valid;
  for (int i = 0; std::filesystem::exists(words.at(0) + "/" + std::to_string(i)); ++i) {
    try {
      const SafetensorsFile file(words.at(0) + "/" + std::to_string(i));
      valid.push_back(1);
    } catch (const InputError&) {
      valid.push_back(0);
    }
  }
  write_npy<int32_t>(words.at(1), valid, {static_cast<int64_t>(valid.size())});
}

void preprocess_lines(const Words& words) {
  preprocess({.inputs = {words.at(0)}, .output_prefix = words.at(1), .skip_bad_lines = true},
             *Tokenizer::bytes());
}

int run(const Words& words) {
  const std::string command = words.empty() ? "" : words[0];
  const Words rest(words.begin() + !words.empty(), words.end());
  if (command == "shuffle")
    shuffle(rest);
  else if (command == "gpt")
    gpt(rest);
  else if (command == "safetensors")
    copy_safetensors(rest);
  else if (command == "lines")
    preprocess_lines(rest);
  else if (command == "verdicts")
    verdicts(rest);
  else
    return kExitConfig;
  return kExitDone;
}

}  // namespace
}  // namespace moetron

int main(int argc, char** argv) {
  try {
    return moetron::run({argv + 1, argv + argc});
  } catch (const moetron::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return moetron::kExitInternal;
  }
}
