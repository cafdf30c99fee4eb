// The file .metadata of torch.distributed.checkpoint.
#include "moetron/formats/dist_metadata.h"

#include "fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  const std::filesystem::path path = write_input("metadata", text_of(data, size));
  return read_or_refuse([&] {
    const DistMetadata metadata(path);
    for (const DistTensor& tensor : metadata.tensors()) {
      if (metadata.find(tensor.name) != &tensor) std::abort();
      for (const DistBox& box : tensor.boxes) {
        if (box.file >= metadata.files().size()) std::abort();
        for (size_t dim = 0; dim < tensor.shape.size(); ++dim)
          if (box.sizes[dim] > tensor.shape[dim] - box.offsets[dim]) std::abort();
      }
    }
  });
}
