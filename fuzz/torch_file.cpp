// Files of torch.save: as they are, and as the pickle of a sound archive.
#include "moetron/formats/torch_file.h"

#include "fuzz/fuzz_folder.h"
#include "moetron/base/file.h"

namespace {

using namespace moetron;

// Looks at every value of the saved dictionary as the reader of Megatron's files would, and more.
void read(const std::filesystem::path& path) {
  read_or_refuse([&] {
    const TorchFile file(path);
    const uint64_t size = std::filesystem::file_size(path);
    const PickleValue* args = file.find("args");
    if (args != nullptr) read_or_refuse([&] { file.attributes(*args, "args"); });
    const PickleValue* model = file.find("model");
    if (model == nullptr) return;
    for (const PickleId id : model->items)
      read_or_refuse([&] {
        const TorchTensor tensor = file.tensor(file.pickle().at(id), "tensor");
        if (tensor.offset > size || tensor.bytes > size - tensor.offset) std::abort();
      });
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = text_of(data, size);
  read(write_input("input.pt", input));
  const std::filesystem::path path = fuzz_folder() / "pickle.pt";
  FileWriter file(path);
  ZipWriter zip(file);
  zip.add("a/data.pkl", input);
  zip.add("a/data/0", "abcdefgh");
  zip.finish();
  file.commit();
  read(path);
  return 0;
}
