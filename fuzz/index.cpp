// model.safetensors.index.json, and the shards that it names.
#include <string>

#include "fuzz/fuzz_folder.h"
#include "moetron/base/log.h"
#include "moetron/formats/safetensors_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  // A shard with one tensor, "x", of one byte.
  static const std::filesystem::path shard = [] {
    init_log(1, 2);  // what is told of an index is not to be read here
    const SafetensorsLayout layout = layout_safetensors({{"x", SafetensorsDtype::kU8, {1}}});
    return write_input("a", layout.header + '\1');
  }();
  return read_or_refuse([&] {
    write_input(kIndexFile, text_of(data, size));
    const ModelFiles files(fuzz_folder());
    for (const std::string& name : files.names()) {
      if (files.file_of(name) != shard || files.bytes(name).size() != 1) std::abort();
    }
  });
}
