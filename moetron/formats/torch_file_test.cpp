#include "moetron/formats/torch_file.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/formats/damage_test.h"
#include "moetron/formats/zip.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Kind = PickleValue::Kind;

// The pickle of a file that torch 2.13 wrote:
//   args = Namespace(num_layers=2, lr=2.5, none=None, flag=True, name="x",
//                    params_dtype=torch.bfloat16, l=[1, -2], big=10**30, long=-2**40)
//   w = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
//   model = OrderedDict(weight=w, row=w[1], bias=Parameter(torch.ones(2)), turned=w.t(),
//                       f8=torch.ones(2).to(torch.float8_e4m3fn), extra=None, io=BytesIO(b"abc"))
//   torch.save({"args": args, "iteration": 7, "model": model}, file)
constexpr char kTorchPickle[] =
    "\200\002}q\000(X\004\000\000\000argsq\001cargparse\012Namespace\012q\002)\201q\003"
    "}q\004(X\012\000\000\000num_layersq\005K\002X\002\000\000\000lrq\006G@\004\000\000"
    "\000\000\000\000X\004\000\000\000noneq\007NX\004\000\000\000flagq\010\210X\004\000"
    "\000\000nameq\011X\001\000\000\000xq\012X\014\000\000\000params_dtypeq\013ctorch\012"
    "bfloat16\012q\014X\001\000\000\000lq\015]q\016(K\001J\376\377\377\377eX\003\000\000"
    "\000bigq\017\212\015\000\000\000@\352\355tF\320\234,\237\014X\004\000\000\000long"
    "q\020\212\006\000\000\000\000\000\377ubX\011\000\000\000iterationq\021K\007X\005\000"
    "\000\000modelq\022ccollections\012OrderedDict\012q\023)Rq\024(X\006\000\000\000we"
    "ightq\025ctorch._utils\012_rebuild_tensor_v2\012q\026((X\007\000\000\000storageq\027"
    "ctorch\012BFloat16Storage\012q\030X\001\000\000\0000q\031X\003\000\000\000cpuq\032"
    "K\006tq\033QK\000K\002K\003\206q\034K\003K\001\206q\035\211h\023)Rq\036tq\037Rq X"
    "\003\000\000\000rowq!h\026((h\027h\030h\031h\032K\006tq\"QK\003K\003\205q#K\001\205"
    "q$\211h\023)Rq%tq&Rq'X\004\000\000\000biasq(ctorch._utils\012_rebuild_parameter\012"
    "q)h\026((h\027ctorch\012FloatStorage\012q*X\001\000\000\0001q+h\032K\002tq,QK\000"
    "K\002\205q-K\001\205q.\211h\023)Rq/tq0Rq1\210h\023)Rq2\207q3Rq4X\006\000\000\000t"
    "urnedq5h\026((h\027h\030h\031h\032K\006tq6QK\000K\003K\002\206q7K\001K\003\206q8\211"
    "h\023)Rq9tq:Rq;X\002\000\000\000f8q<ctorch._utils\012_rebuild_tensor_v3\012q=((h\027"
    "ctorch.storage\012UntypedStorage\012q>X\001\000\000\0002q\077h\032K\002tq@QK\000K"
    "\002\205qAK\001\205qB\211h\023)RqCctorch\012float8_e4m3fn\012qDtqERqFX\005\000\000"
    "\000extraqGNX\002\000\000\000ioqHc_io\012BytesIO\012qI)\201qJc_codecs\012encode\012"
    "qKX\003\000\000\000abcqLX\006\000\000\000latin1qM\206qNRqOK\000N\207qPbuu.";

class TorchFileTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  // The zip archive around a pickle as torch writes it, with the storages of kTorchPickle.
  fs::path pack(std::string_view pickle, std::string_view order = "little") const {
    const fs::path path = folder_ / "a.pt";
    FileWriter file(path);
    ZipWriter zip(file);
    zip.add("archive/data.pkl", pickle);
    zip.add("archive/byteorder", order);
    const uint16_t weight[] = {0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0};
    zip.begin("archive/data/0", sizeof(weight));
    zip.write(std::as_bytes(std::span(weight)));
    const float ones[] = {1, 1};
    zip.begin("archive/data/1", sizeof(ones));
    zip.write(std::as_bytes(std::span(ones)));
    zip.add("archive/data/2", "\x38\x38");
    zip.finish();
    file.commit();
    return path;
  }
  static std::string_view torch_pickle() { return {kTorchPickle, sizeof(kTorchPickle) - 1}; }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_torch_" + std::to_string(::getpid()));
};

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(TorchFileTest, ReadsWhatTorchSaved) {
  const TorchFile file(pack(torch_pickle()));
  EXPECT_EQ(file.find("iteration")->integer, 7);
  EXPECT_EQ(file.find("optimizer"), nullptr);
  const Pickle& pickle = file.pickle();
  const PickleValue& args = file.attributes(*file.find("args"), "args");
  EXPECT_EQ(pickle.find(args, "num_layers")->integer, 2);
  EXPECT_EQ(pickle.find(args, "lr")->number, 2.5);
  EXPECT_EQ(pickle.find(args, "none")->kind, Kind::kNone);
  EXPECT_EQ(pickle.find(args, "flag")->kind, Kind::kBool);
  EXPECT_EQ(pickle.find(args, "flag")->integer, 1);
  EXPECT_EQ(pickle.find(args, "name")->text, "x");
  EXPECT_EQ(pickle.find(args, "params_dtype")->text, "bfloat16");
  EXPECT_EQ(pickle.at(pickle.find(args, "l")->items[1]).integer, -2);
  EXPECT_EQ(pickle.find(args, "big")->kind, Kind::kOther);
  EXPECT_EQ(pickle.find(args, "long")->integer, -(int64_t{1} << 40));
}

TEST_F(TorchFileTest, FindsTensorsInTheFile) {
  const fs::path path = pack(torch_pickle());
  const TorchFile file(path);
  const PickleValue& model = *file.find("model");
  const auto tensor = [&](const char* name) {
    return file.tensor(*file.pickle().find(model, name), name);
  };
  const TorchTensor row = tensor("row");
  EXPECT_EQ(row.dtype, SafetensorsDtype::kBF16);
  EXPECT_EQ(row.shape, std::vector<int64_t>{3});
  EXPECT_EQ(row.offset, tensor("weight").offset + 6);
  EXPECT_EQ(row.bytes, 6u);
  EXPECT_EQ(read_file(path).substr(row.offset, 2), "\x40\x40");
  EXPECT_EQ(tensor("bias").dtype, SafetensorsDtype::kF32);
  EXPECT_EQ(tensor("f8").dtype, SafetensorsDtype::kF8E4M3);
  EXPECT_EQ(tensor("weight").offset % 64, 0u);
  const std::string start = path.string() + ": ";
  EXPECT_EQ(
      message_of([&] { tensor("turned"); }),
      start + "turned is a view whose elements do not lie in a row; save it as .contiguous()");
  EXPECT_EQ(message_of([&] { tensor("extra"); }), start + "extra is no tensor");
  EXPECT_EQ(message_of([&] { tensor("io"); }), start + "io is no tensor but made by _io.BytesIO");
}

// An instruction that would run a program is data like any other.
TEST_F(TorchFileTest, ExecutesNothing) {
  const fs::path trace = folder_ / "trace";
  const std::string command = "touch " + trace.string();
  std::string pickle = "\x80\x02}X\x05";
  pickle += std::string("\0\0\0model", 8) + "cposix\nsystem\nU" +
            static_cast<char>(command.size()) + command + "\x85Rs.";
  const TorchFile file(pack(pickle));
  EXPECT_FALSE(fs::exists(trace));
  EXPECT_EQ(message_of([&] { file.tensor(*file.find("model"), "model"); }),
            file.path().string() + ": model is no tensor but made by posix.system");
}

TEST_F(TorchFileTest, NamesWhatItCannotRead) {
  const std::string start = (folder_ / "a.pt").string();
  const auto message = [&](std::string_view pickle) {
    return message_of([&] { TorchFile file(pack(pickle)); });
  };
  EXPECT_EQ(message("N"), start + " has a pickle that is cut short");
  EXPECT_EQ(message("."), start + " has a pickle that takes more than it has");
  EXPECT_EQ(message("(t\x85."), "no error");
  EXPECT_EQ(message("\x85."), start + " has a pickle that takes more than it has");
  EXPECT_EQ(message("t."), start + " has a pickle without a mark where it needs one");
  EXPECT_EQ(message("h\x05."), start + " has a pickle that takes what it did not keep");
  EXPECT_EQ(message("}(Nu."), start + " has a pickle with a key that has no value");
  EXPECT_EQ(message("I1\n."), start + " has a pickle with the unknown instruction 73");
  EXPECT_EQ(message_of([&] { TorchFile file(pack(torch_pickle(), "big")); }),
            start + " has its numbers in another order than little-endian");
  std::ofstream(folder_ / "a.pt") << "\x80\x02\x8a\x0al\xfc\x9c";
  EXPECT_EQ(message_of([&] { TorchFile file(folder_ / "a.pt"); }),
            start +
                " is no zip archive, as torch.save writes them since torch 1.6; load it there and "
                "save it again");
}

TEST_F(TorchFileTest, WritesWhatItReads) {
  const fs::path path = folder_ / "b.pt";
  TorchContents contents;
  contents.args = {{"none", {nullptr}},
                   {"flag", {false}},
                   {"large", {int64_t{1} << 40}},
                   {"small", {int64_t{-3}}},
                   {"eps", {1e-6}},
                   {"dtype", {TorchDtype{SafetensorsDtype::kBF16}}},
                   {"list", {TorchValue::List{{int64_t{0}}, {int64_t{1}}}}}};
  contents.values = {{"checkpoint_version", {3.0}}, {"iteration", {int64_t{5}}}};
  contents.models = {{"model0", {{"a", SafetensorsDtype::kBF16, {2, 3}}}, {"a._extra_state"}},
                     {"model1", {{"b", SafetensorsDtype::kF32, {}}}, {}}};
  write_torch_file(path, contents, [](size_t model, size_t, const TorchSink& sink) {
    const std::string bytes = model == 0 ? "abcdefghijkl" : "wxyz";
    sink(std::as_bytes(std::span(bytes)).first(1));
    sink(std::as_bytes(std::span(bytes)).subspan(1));
  });
  const TorchFile file(path);
  const Pickle& pickle = file.pickle();
  const PickleValue& args = file.attributes(*file.find("args"), "args");
  EXPECT_EQ(pickle.find(args, "none")->kind, Kind::kNone);
  EXPECT_EQ(pickle.find(args, "flag")->kind, Kind::kBool);
  EXPECT_EQ(pickle.find(args, "large")->integer, int64_t{1} << 40);
  EXPECT_EQ(pickle.find(args, "small")->integer, -3);
  EXPECT_EQ(pickle.find(args, "eps")->number, 1e-6);
  EXPECT_EQ(pickle.find(args, "dtype")->text, "bfloat16");
  EXPECT_EQ(pickle.find(args, "list")->items.size(), 2u);
  EXPECT_EQ(file.find("iteration")->integer, 5);
  const TorchTensor a = file.tensor(*pickle.find(*file.find("model0"), "a"), "a");
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.offset % 64, 0u);
  EXPECT_EQ(read_file(path).substr(a.offset, a.bytes), "abcdefghijkl");
  EXPECT_EQ(pickle.find(*file.find("model0"), "a._extra_state")->kind, Kind::kNone);
  const TorchTensor b = file.tensor(*pickle.find(*file.find("model1"), "b"), "b");
  EXPECT_EQ(read_file(path).substr(b.offset, b.bytes), "wxyz");
}

TEST_F(TorchFileTest, RefusesTensorsBeyondTheirStorage) {
  std::string pickle(torch_pickle());
  const size_t row = pickle.find("K\x03K\x03\x85");  // offset 3 and shape (3,) of `row`
  ASSERT_NE(row, std::string::npos);
  pickle[row + 1] = 4;
  const TorchFile file(pack(pickle));
  const PickleValue& value = *file.pickle().find(*file.find("model"), "row");
  EXPECT_EQ(message_of([&] { file.tensor(value, "row"); }),
            file.path().string() + ": row lies beyond its storage of 12 bytes");
}

TEST(ZipCrcTest, HasTheKnownValue) {
  const std::string text = "123456789";
  const auto bytes = std::as_bytes(std::span(text));
  EXPECT_EQ(zip_crc(bytes), 0xcbf43926u);
  EXPECT_EQ(zip_crc(bytes), zip_crc(bytes.subspan(4), zip_crc(bytes.first(4))));
  EXPECT_EQ(zip_crc({}, 7), 7u);
}

// The bytes of all tensors of `model` that can be read, once their CRCs are checked.
std::string checked_tensors(const fs::path& path) {
  const TorchFile file(path);
  std::vector<ZipRecord> records;
  std::string all;
  for (const char* name : {"weight", "row", "bias", "f8"}) {
    const PickleValue* value = file.pickle().find(*file.find("model"), name);
    MT_CHECK_INPUT(value != nullptr, path.string(), " lacks ", name);
    const TorchTensor tensor = file.tensor(*value, name);
    records.push_back({path, name, tensor.storage});
    all += concat(name, dtype_name(tensor.dtype), shape_text(tensor.shape)) +
           read_file(path).substr(tensor.offset, tensor.bytes);
  }
  check_records(records, 2);
  return all;
}

// Of each byte of a file one bit at a time: what is not refused has changed nothing.
TEST_F(TorchFileTest, NoticesEveryFlippedBit) {
  const fs::path path = pack(torch_pickle());
  const std::string good = read_file(path), wanted = checked_tensors(path);
  const size_t bias = good.find(std::string("\0\0\x80\x3f\0\0\x80\x3f", 8));
  ASSERT_NE(bias, std::string::npos);
  size_t num_refused = 0;
  for (size_t place = 0; place < good.size(); ++place) {
    std::string damaged = good;
    damaged[place] = static_cast<char>(damaged[place] ^ (1 << place % 8));
    dump(path, damaged);
    const std::string message =
        message_of([&] { ASSERT_EQ(checked_tensors(path), wanted) << "byte " << place; });
    const bool names_file = message.find(path.string()) != std::string::npos;
    EXPECT_TRUE(names_file || message == "no error") << message;
    num_refused += names_file ? 1 : 0;
    if (place == bias) {
      EXPECT_EQ(message.substr(0, message.find(':')), path.string() + " is damaged in bias");
    }
  }
  EXPECT_GT(num_refused, torch_pickle().size());
}

// torch.serialization.set_crc32_options(False) writes zeros.
TEST_F(TorchFileTest, ReadsFilesWithoutCrcs) {
  const fs::path path = pack(torch_pickle());
  EXPECT_TRUE(TorchFile(path).has_crcs());
  std::string bytes = read_file(path);
  const std::string header = "PK\x01\x02";
  for (size_t at = bytes.find(header); at != std::string::npos; at = bytes.find(header, at + 1))
    bytes.replace(at + 16, 4, 4, '\0');
  dump(path, bytes);
  const TorchFile file(path);
  EXPECT_FALSE(file.has_crcs());
  EXPECT_EQ(file.find("iteration")->integer, 7);
}

// Else a short file could have its bytes read many times.
TEST_F(TorchFileTest, RefusesEntriesThatOverlap) {
  const fs::path path = pack(torch_pickle());
  std::string bytes = read_file(path);
  const auto entry = [&](const char* name) { return bytes.rfind(name) - 46; };
  const size_t from = entry("archive/data/0"), to = entry("archive/data/1");
  bytes.replace(to + 16, 12, bytes.substr(from + 16, 12));
  bytes.replace(to + 42, 4, bytes.substr(from + 42, 4));
  dump(path, bytes);
  EXPECT_EQ(message_of([&] { TorchFile file(path); }),
            path.string() + " has a zip directory whose entries overlap");
}

// Whatever is damaged, every value can be looked at as a tensor.
TEST_F(TorchFileTest, SurvivesDamage) {
  const auto look = [&](const fs::path& path) {
    const TorchFile file(path);
    const PickleValue* model = file.find("model");
    if (model == nullptr) return;
    const size_t size = fs::file_size(path);
    for (const PickleId id : model->items) {
      try {
        const TorchTensor tensor = file.tensor(file.pickle().at(id), "tensor");
        ASSERT_LE(tensor.offset, size);
        ASSERT_LE(tensor.bytes, size - tensor.offset);
      } catch (const InputError&) {
      }
    }
  };
  const fs::path path = folder_ / "damaged.pt";
  const auto look_at = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    look(path);
  };
  EXPECT_GT(read_damaged(read_file(pack(torch_pickle())), 0.5, look_at), 0);
  // The pickle alone, within an archive that stays sound: what follows its end is not read.
  const std::string pickle(torch_pickle());
  const std::string roomy = pickle + std::string(64, '\0');
  const std::string archive = read_file(pack(roomy));
  const size_t place = archive.find(roomy);
  EXPECT_GT(read_damaged(pickle, 0.5,
                         [&](std::string bytes) {
                           bytes.resize(roomy.size());
                           look_at(std::string(archive).replace(place, bytes.size(), bytes));
                         }),
            0);
}

}  // namespace
}  // namespace moetron
