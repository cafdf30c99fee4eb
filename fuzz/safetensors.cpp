// The header of a safetensors file, and every byte that it says there is.
#include "moetron/formats/safetensors.h"

#include "fuzz/fuzz_folder.h"
#include "moetron/base/hash.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  return read_or_refuse([&] {
    const SafetensorsFile file(write_input("input", text_of(data, size)));
    for (const SafetensorsEntry& tensor : file.tensors())
      hash_hex(file.bytes(file.at(tensor.name)));
  });
}
