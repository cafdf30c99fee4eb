#include "moetron/convert/torch_dist_source.h"

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/temporary_folder.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_models_test.h"
#include "moetron/convert/megatron_records.h"
#include "moetron/convert/megatron_tensors.h"
#include "moetron/formats/damage_test.h"
#include "moetron/formats/dist_files_test.h"
#include "moetron/formats/dist_metadata.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFiles[] = {"__0_0.distcp", "__1_0.distcp"};

// The folder of an iteration, with every parameter of a model as global tensors, in two files. What
// Megatron itself writes, megatron_dist_oracle.py reads.
class DistFolder {
 public:
  DistFolder(const ModelConfig& config, bool stacked) : source_(config) {
    MegatronLayout layout = layout_of(config);
    const MegatronModel model(config, layout, MtpTensors::kLeaveOut);
    for (const MegatronTensor& tensor : model.chunk({}, 0)) {
      const std::string prefix = "decoder.layers.";
      std::string key = tensor.name;
      std::vector<int64_t> shape = tensor.shape, offsets(shape.size(), 0), sizes = shape;
      const auto stack = [&](int64_t place, int64_t count) {
        shape.insert(shape.begin(), count);
        sizes.insert(sizes.begin(), 1);
        offsets.insert(offsets.begin(), place);
      };
      const std::string local = ".local_experts.";
      if (const size_t at = key.find(local); at != std::string::npos) {
        const size_t dot = key.find('.', at + local.size());
        stack(std::stoll(key.substr(at + local.size())), config.moe->num_experts);
        key = key.substr(0, at) + ".experts" + key.substr(dot);
      }
      if (stacked && key.starts_with(prefix)) {
        const size_t dot = key.find('.', prefix.size());
        const int64_t layer = std::stoll(key.substr(prefix.size(), dot - prefix.size()));
        key = prefix + key.substr(dot + 1);
        stack(layer, config.num_layers);
      }
      tensors.try_emplace(key, DistTensor{key, SafetensorsDtype::kI32, shape, {}});
      add(tensors.at(key), offsets, sizes, elements(model, tensor));
    }
  }

  const CountingSource& source() const { return source_; }
  // As two boxes, of even rows each, where there are such.
  void add(DistTensor& tensor, std::vector<int64_t> offsets, std::vector<int64_t> sizes,
           const std::vector<int32_t>& values) {
    const size_t dim =
        tensor.shape.size() > 2 || tensor.shape.size() == 1 ? tensor.shape.size() - 1 : 0;
    const bool is_matrix_columns = dim > 0 && sizes[dim - 1] > 1;
    if (sizes[dim] % 2 != 0 || is_matrix_columns) return add_box(tensor, offsets, sizes, values);
    sizes[dim] /= 2;
    const size_t half = values.size() / 2;
    add_box(tensor, offsets, sizes, {values.begin(), values.begin() + std::ptrdiff_t(half)});
    offsets[dim] += sizes[dim];
    add_box(tensor, offsets, sizes, {values.begin() + std::ptrdiff_t(half), values.end()});
  }
  void add_box(DistTensor& tensor, const std::vector<int64_t>& offsets,
               const std::vector<int64_t>& sizes, const std::vector<int32_t>& values) {
    const size_t file = tensor.boxes.size() % 2;
    const std::string saved = dist_files::saved_tensor(
        SafetensorsDtype::kI32, sizes, std::as_bytes(std::span(values)), path() / "scratch");
    tensor.boxes.push_back({offsets, sizes, file, files[file].size(), saved.size()});
    files[file] += saved;
  }

  const fs::path& write() const {
    std::vector<DistTensor> all;
    for (const auto& [key, tensor] : tensors) all.push_back(tensor);
    dump(path() / kDistMetadataFile, dist_files::metadata(all, {kFiles[0], kFiles[1]}));
    for (size_t i = 0; i < 2; ++i) dump(path() / kFiles[i], files[i]);
    return path();
  }
  const fs::path& path() const { return folder_.path(); }

  std::map<std::string, DistTensor> tensors;
  std::string files[2];

 private:
  std::vector<int32_t> elements(const MegatronModel& model, const MegatronTensor& tensor) const {
    std::vector<int32_t> values;
    for (const TensorPiece& piece : tensor.pieces) {
      const size_t index = find_tensor(source_, model.inventory()[piece.tensor].name);
      const auto part = read_range(source_, index, uint64_t(piece.row * piece.columns),
                                   uint64_t(piece.rows * piece.columns));
      values.insert(values.end(), part.begin(), part.end());
    }
    values.resize(size_t(tensor.shape[0] * num_columns(tensor.shape)));  // a padded vocabulary
    return values;
  }

  TemporaryFolder folder_{"dist"};
  CountingSource source_;
};

void expect_same(const TensorSource& found, const TensorSource& wanted) {
  ASSERT_EQ(found.tensors().size(), wanted.tensors().size());
  for (size_t i = 0; i < wanted.tensors().size(); ++i) {
    const SafetensorsTensor& tensor = wanted.tensors()[i];
    EXPECT_EQ(found.tensors()[i].name, tensor.name);
    EXPECT_EQ(found.tensors()[i].shape, tensor.shape);
    uint64_t count = 1;
    for (const int64_t dim : tensor.shape) count *= static_cast<uint64_t>(dim);
    for (const auto& [begin, size] : {std::pair(uint64_t{0}, count), {count / 3, count / 2}})
      EXPECT_EQ(read_range(found, i, begin, size), read_range(wanted, i, begin, size))
          << tensor.name;
  }
}

TEST(TorchDistSourceTest, ReadsLayersStackedAndNumbered) {
  for (const ModelConfig& config : {llama(), qwen2(), qwen3_moe(), deepseek_v3()})
    for (const bool stacked : {false, true}) {
      if (stacked && config.mla) continue;  // whose first layer is dense
      const DistFolder folder(config, stacked);
      expect_same(TorchDistSource(folder.write(), config), folder.source());
    }
}

TEST(TorchDistSourceTest, LeavesTheOptimizerOut) {
  DistFolder folder(llama(), true);
  DistTensor moment{"optimizer.state.exp_avg.x", SafetensorsDtype::kI32, {4}, {}};
  folder.add(moment, {0}, {4}, {1, 2, 3, 4});
  folder.tensors.emplace(moment.name, moment);
  const TorchDistSource source(folder.write(), llama());
  EXPECT_EQ(source.left_out(), std::vector<std::string>{moment.name});
  expect_same(source, folder.source());
}

class TorchDistMistakes : public ::testing::Test {
 protected:
  std::string message(const ModelConfig& config = llama()) const {
    folder.write();
    return message_of([&] { TorchDistSource(folder.path(), config); });
  }
  DistFolder folder{llama(), true};
  std::string metadata = (folder.path() / kDistMetadataFile).string();
  DistTensor& norm = folder.tensors.at("decoder.final_layernorm.weight");
};

TEST_F(TorchDistMistakes, NamesWhatDoesNotFit) {
  EXPECT_EQ(message(), "no error");
  ModelConfig other = llama();
  other.num_layers = 5;
  EXPECT_EQ(message(other), metadata +
                                ": decoder.layers.input_layernorm.weight has the shape [4, 8], "
                                "config.json asks for [5, 8]");
  other = llama();
  other.tie_word_embeddings = true;
  EXPECT_EQ(message(other),
            metadata + " holds output_layer.weight, which the model of config.json has not");
  folder.tensors.erase("output_layer.weight");
  EXPECT_EQ(message(), metadata + " holds no output_layer.weight");
}

TEST_F(TorchDistMistakes, WantsEveryElementOnce) {
  const DistTensor whole = norm;
  ASSERT_EQ(norm.boxes.size(), 2u);
  norm.boxes.pop_back();
  EXPECT_EQ(message(), metadata + ": parts of decoder.final_layernorm.weight are missing");
  norm = whole;
  norm.boxes[1].offsets = {3};
  EXPECT_EQ(message(), metadata + ": two parts of decoder.final_layernorm.weight overlap");
}

TEST_F(TorchDistMistakes, ComparesEachPartWithItsMetadata) {
  const std::string file = (folder.path() / kFiles[0]).string();
  norm.dtype = SafetensorsDtype::kF32;
  EXPECT_EQ(message(),
            file + ": decoder.final_layernorm.weight is I32 [4], .metadata tells of F32 [4]");
  norm.dtype = SafetensorsDtype::kI32;
  const DistBox whole = norm.boxes[0];
  norm.boxes[0].begin = folder.files[0].size() - 1;
  norm.boxes[0].bytes = 2;
  EXPECT_EQ(message(), metadata + " has two parts at one place of " + kFiles[0]);
  norm.boxes[0].begin = folder.files[0].size();
  EXPECT_NE(message().find(file + " is cut short: it has "), std::string::npos);
  norm.boxes[0] = whole;
  norm.boxes[0].bytes = 10;
  EXPECT_NE(message().find(file), std::string::npos);
  norm.boxes[0].begin = uint64_t{1} << 62;
  EXPECT_NE(message().find("is cut short"), std::string::npos);
}

TEST_F(TorchDistMistakes, NamesMissingFiles) {
  folder.write();
  fs::remove(folder.path() / kFiles[1]);
  const std::string text = message_of([&] { TorchDistSource(folder.path(), llama()); });
  EXPECT_NE(text.find(kFiles[1]), std::string::npos) << text;
  fs::remove(folder.path() / kDistMetadataFile);
  EXPECT_FALSE(is_torch_dist_folder(folder.path()));
}

// Bits of .metadata and of the parts, one at a time: what is not refused has changed nothing.
TEST_F(TorchDistMistakes, NoticesFlippedBits) {
  folder.write();
  EXPECT_EQ(check_megatron_records(folder.path(), {}, 2), 0u);
  int num_refused = 0;
  const auto flip = [&](const fs::path& path, size_t stride) {
    const std::string good = read_file(path);
    for (size_t place = 0; place < good.size(); place += stride) {
      std::string damaged = good;
      damaged[place] = static_cast<char>(damaged[place] ^ (1 << place % 8));
      dump(path, damaged);
      const std::string message = message_of([&] {
        check_megatron_records(folder.path(), {}, 1);
        expect_same(TorchDistSource(folder.path(), llama()), folder.source());
      });
      const bool names_file = message.find(folder.path().string()) != std::string::npos;
      EXPECT_TRUE(names_file || message == "no error") << message;
      num_refused += names_file ? 1 : 0;
      ASSERT_FALSE(HasFailure()) << path << ", byte " << place;
    }
    dump(path, good);
  };
  flip(folder.path() / kDistMetadataFile, 41);
  flip(folder.path() / kFiles[1], 97);
  EXPECT_GT(num_refused, 0);
}

// The parts of a check see each byte of data once, and none twice.
TEST_F(TorchDistMistakes, DividesTheCheck) {
  folder.write();
  const fs::path path = folder.path() / kFiles[0];
  const std::string good = read_file(path);
  const DistBox box = DistMetadata(folder.path() / kDistMetadataFile)
                          .find("decoder.final_layernorm.weight")
                          ->boxes.at(0);
  const TorchFile part(path, box.begin, box.bytes);
  std::string damaged = good;
  damaged[part.tensor(part.pickle().root(), "norm").offset] ^= 1;
  dump(path, damaged);
  int num_refused = 0;
  for (uint64_t rank = 0; rank < 3; ++rank)
    num_refused += message_of([&] {
                     check_megatron_records(folder.path(), {rank, 3}, 1);
                   }).starts_with(path.string() + " is damaged in decoder.final_layernorm.weight")
                       ? 1
                       : 0;
  EXPECT_EQ(num_refused, 1);
}

// Whatever is damaged, reading ends with an error or with as many bytes as were asked for.
TEST_F(TorchDistMistakes, SurvivesDamage) {
  folder.write();
  const auto look = [&] {
    const TorchDistSource source(folder.path(), llama());
    for (size_t i = 0; i < source.tensors().size(); i += 5) read_whole(source, i);
  };
  const fs::path metadata_path = folder.path() / kDistMetadataFile;
  const std::string good = read_file(metadata_path);
  const size_t kept = good.size() > 600 ? good.size() - 600 : 0;  // prefixes of the end alone
  read_damaged(good.substr(kept), 1, [&](const std::string& end) {
    dump(metadata_path, good.substr(0, kept) + end);
    look();
  });
  read_damaged(good, 1, [&](const std::string& bytes) {
    if (bytes.size() + 64 < good.size()) throw InputError("a prefix");
    dump(metadata_path, bytes);
    look();
  });
  dump(metadata_path, good);
  const std::string part = folder.files[0].substr(0, 900);
  read_damaged(part, 1, [&](const std::string& bytes) {
    if (bytes.size() + 64 < part.size()) throw InputError("a prefix");
    dump(folder.path() / kFiles[0], bytes + folder.files[0].substr(part.size()));
    look();
  });
}

}  // namespace
}  // namespace moetron
