#include "moetron/formats/dist_metadata.h"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/formats/damage_test.h"
#include "moetron/formats/dist_files_test.h"

namespace moetron {
namespace {

// The file .metadata that torch 2.13 wrote of
//   {"a.w": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), "x": {"y": 5}, "s":
//   torch.tensor(3.0)}
constexpr char kTorchMetadata[] =
    "\200\004\225\027\004\000\000\000\000\000\000\214%torch.distributed.checkpoint.metadat"
    "a\224\214\010Metadata\224\223\224)\201\224}\224(\214\023state_dict_metadata\224}\224("
    "\214\003a.w\224h\000\214\025TensorStorageMetadata\224\223\224)\201\224}\224(\214\012p"
    "roperties\224h\000\214\020TensorProperties\224\223\224)\201\224(\214\005torch\224\214"
    "\010bfloat16\224\223\224\214\023torch.serialization\224\214\013_get_layout\224\223\224"
    "\214\015torch.strided\224\205\224R\224\211h\000\214\024_MEM_FORMAT_ENCODING\224\223\224"
    "K\000\205\224R\224\211t\224b\214\004size\224\214\005torch\224\214\004Size\224\223\224"
    "K\002K\003\206\224\205\224R\224\214\006chunks\224]\224h\000\214\024ChunkStorageMetada"
    "ta\224\223\224)\201\224}\224(\214\007offsets\224h!K\000K\000\206\224\205\224R\224\214"
    "\005sizes\224h!K\002K\003\206\224\205\224R\224ubaub\214\003x.y\224h\000\214\024BytesS"
    "torageMetadata\224\223\224)\201\224\214\001s\224h\011)\201\224}\224(h\014h\016)\201\224"
    "(h\020\214\007float32\224\223\224h\030\211h\034\211t\224bh\036h!)\205\224R\224h%]\224"
    "h()\201\224}\224(h+h!)\205\224R\224h/h!)\205\224R\224ubaubu\214\014planner_data\224}\224"
    "(h\007h\007\205\224h3\214\001x\224\214\001y\224\206\224h7h7\205\224u\214\014storage_d"
    "ata\224}\224(h\000\214\015MetadataIndex\224\223\224)\201\224}\224(\214\003fqn\224h3\214"
    "\005index\224Nub\214'torch.distributed.checkpoint.filesystem\224\214\014_StorageInfo\224"
    "\223\224)\201\224}\224(\214\015relative_path\224\214\014__0_0.distcp\224\214\006offse"
    "t\224K\000\214\006length\224M\355\004ubhQ)\201\224}\224(hTh\007hUK\000h]h!K\000K\000\206"
    "\224\205\224R\224ubhX)\201\224}\224(h[h\134h]M\355\004h^M)\006ubhQ)\201\224}\224(hTh7"
    "hUK\000h]h!)\205\224R\224ubhX)\201\224}\224(h[h\134h]M\026\013h^M)\006ubu\214\014stor"
    "age_meta\224h\000\214\013StorageMeta\224\223\224)\201\224}\224(\214\015checkpoint_id\224"
    "\214\007pathlib\224\214\011PosixPath\224\223\224\214\001c\224\205\224R\224\214\007sav"
    "e_id\224\214$1fba1a95-516e-450d-b7f0-3d64eb51a017\224\214\007load_id\224N\214\007modu"
    "les\224]\224ub\214\007version\224\214\0051.0.0\224ub.";

class DistMetadataTest : public ::testing::Test {
 protected:
  DistMetadata read(const std::string& bytes) const {
    dump(path_, bytes);
    return DistMetadata(path_);
  }
  std::string message(const std::string& bytes) const {
    try {
      read(bytes);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }
  std::string message(const std::vector<DistTensor>& tensors,
                      const std::vector<std::string>& files = {"__0_0.distcp"}) const {
    return message(dist_files::metadata(tensors, files));
  }
  static std::string torch_metadata() { return {kTorchMetadata, sizeof(kTorchMetadata) - 1}; }

  TemporaryFolder folder_{"dist"};
  std::filesystem::path path_ = folder_.path() / ".metadata";
};

TEST_F(DistMetadataTest, ReadsWhatTorchSaved) {
  const DistMetadata metadata = read(torch_metadata());
  ASSERT_EQ(metadata.tensors().size(), 2u);
  EXPECT_EQ(metadata.files(), std::vector<std::string>{"__0_0.distcp"});
  const DistTensor& a = *metadata.find("a.w");
  EXPECT_EQ(a.dtype, SafetensorsDtype::kBF16);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  ASSERT_EQ(a.boxes.size(), 1u);
  EXPECT_EQ(a.boxes[0].offsets, (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(a.boxes[0].sizes, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.boxes[0].begin, 1261u);
  EXPECT_EQ(a.boxes[0].bytes, 1577u);
  const DistTensor& s = *metadata.find("s");
  EXPECT_EQ(s.dtype, SafetensorsDtype::kF32);
  EXPECT_TRUE(s.shape.empty());
  EXPECT_EQ(s.boxes.at(0).begin, 2838u);
  EXPECT_EQ(metadata.find("x.y"), nullptr);
}

DistTensor halves() {
  return {.name = "w",
          .dtype = SafetensorsDtype::kF32,
          .shape = {4, 2},
          .boxes = {{{0, 0}, {2, 2}, 0, 0, 100}, {{2, 0}, {2, 2}, 1, 100, 100}}};
}

TEST_F(DistMetadataTest, ReadsPartsInSeveralFiles) {
  const DistMetadata metadata = read(dist_files::metadata({halves()}, {"a.distcp", "b.distcp"}));
  EXPECT_EQ(metadata.files(), (std::vector<std::string>{"a.distcp", "b.distcp"}));
  EXPECT_EQ(metadata.tensors()[0].boxes[1].file, 1u);
  EXPECT_EQ(metadata.tensors()[0].boxes[1].begin, 100u);
}

TEST_F(DistMetadataTest, NamesWhatItCannotRead) {
  const std::string start = path_.string();
  DistTensor tensor = halves();
  tensor.boxes[1].sizes = {3, 2};
  EXPECT_EQ(message({tensor}, {"a", "b"}), start + ": w has a part beyond its shape [4, 2]");
  tensor.boxes[1] = {{2}, {2}, 0, 0, 0};
  EXPECT_EQ(message({tensor}, {"a", "b"}), start + ": w has a part beyond its shape [4, 2]");
  tensor.boxes[1] = tensor.boxes[0];
  EXPECT_EQ(message({tensor}, {"a", "b"}), start + " has two places for one part of w");
  EXPECT_EQ(message({halves(), halves()}, {"a", "b"}), start + " has two places for one part of w");
  tensor = halves();
  tensor.boxes[1].file = 0;
  tensor.boxes[1].begin = 99;
  EXPECT_EQ(message({tensor}, {"a"}), start + " has two parts at one place of a");
  for (const char* name : {"../a", "/etc/passwd", "..", ".", ""})
    EXPECT_EQ(message({halves()}, {"a", name}),
              start + ": relative_path \"" + name + "\" is no name of a file beside it");
  EXPECT_EQ(message("\x80\x02}."),
            start + ": Metadata is not as torch.distributed.checkpoint writes it");
  EXPECT_EQ(message("\x80\x02"), start + " has a pickle that is cut short");
  std::string moved = torch_metadata();
  moved.replace(moved.find("relative_path"), 13, "relative_pith");
  EXPECT_EQ(message(moved),
            start + ": relative_path is not as torch.distributed.checkpoint writes it");
}

// One object that is named by many keys: what is searched is bounded.
TEST_F(DistMetadataTest, RefusesObjectsOfManyAttributes) {
  const auto with = [&](size_t count) {
    std::string bytes = dist_files::metadata({halves()}, {"a", "b"}), more;
    for (size_t i = 0; i < count; ++i) more += dist_files::text("x") + "N";
    const std::string place = dist_files::text("relative_path");
    return bytes.insert(bytes.find(place), more);
  };
  EXPECT_EQ(message(with(40)), "no error");
  EXPECT_EQ(message(with(70)),
            path_.string() + ": w is not as torch.distributed.checkpoint writes it");
}

// What would run a program where pickles are loaded is data here.
TEST_F(DistMetadataTest, ExecutesNothing) {
  const std::filesystem::path trace = folder_.path() / "trace";
  const std::string command = "touch " + trace.string();
  EXPECT_NE(message("\x80\x02"
                    "cposix\nsystem\n" +
                    dist_files::text(command) + "\x85R."),
            "no error");
  EXPECT_FALSE(std::filesystem::exists(trace));
}

TEST_F(DistMetadataTest, SurvivesDamage) {
  const auto look = [&](const std::string& bytes) {
    const DistMetadata metadata = read(bytes);
    for (const DistTensor& tensor : metadata.tensors()) {
      EXPECT_EQ(metadata.find(tensor.name), &tensor);
      for (const DistBox& box : tensor.boxes) {
        ASSERT_LT(box.file, metadata.files().size());
        ASSERT_EQ(box.offsets.size(), tensor.shape.size());
        for (size_t dim = 0; dim < tensor.shape.size(); ++dim)
          ASSERT_LE(box.sizes[dim], tensor.shape[dim] - box.offsets[dim]);
      }
    }
  };
  EXPECT_GT(read_damaged(torch_metadata(), 1, look), 0);
  read_damaged(dist_files::metadata({halves()}, {"a", "b"}), 0.5, look);
}

}  // namespace
}  // namespace moetron
