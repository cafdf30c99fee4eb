#include "moetron/convert/megatron_records.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_state.h"
#include "moetron/formats/dist_metadata.h"
#include "moetron/formats/torch_file.h"
#include "moetron/formats/zip.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// Divides what lies one behind the other, by bytes.
class Divider {
 public:
  Divider(ManifestPart part, uint64_t total) : part_(part), total_(std::max<uint64_t>(total, 1)) {}

  // Whether the next `bytes` are this part's.
  bool takes(uint64_t bytes) {
    if (part_.count == 0) return false;
    const double place = static_cast<double>(std::exchange(done_, done_ + bytes));
    const double share = place * static_cast<double>(part_.count) / static_cast<double>(total_);
    return std::min(static_cast<uint64_t>(share), part_.count - 1) == part_.index;
  }

 private:
  ManifestPart part_;
  uint64_t total_;
  uint64_t done_ = 0;
};

struct Records {
  std::vector<ZipRecord> records;
  uint64_t num_unknown = 0;

  void add(const TorchFile& file, const std::string& name, const ZipEntry& entry) {
    if (file.has_crcs())
      records.push_back({file.path(), name, entry});
    else
      ++num_unknown;
  }
};

// Several tensors may lie in one storage.
Records find_in_rank_files(const fs::path& iteration, ManifestPart part) {
  Records found;
  for (const std::string& rank : rank_folders(iteration)) {
    const TorchFile file(iteration / rank / kMegatronFile);
    std::map<uint64_t, std::pair<std::string, ZipEntry>> storages;  // by place
    uint64_t total = 0;
    for (const PickleValue* state : megatron_states(file))
      for (const auto& [name, tensor] : read_state(file, *state))
        if (storages.try_emplace(tensor.storage.offset, name, tensor.storage).second)
          total += tensor.storage.bytes;
    Divider divider(part, total);
    for (const auto& [place, storage] : storages)
      if (divider.takes(storage.second.bytes)) found.add(file, storage.first, storage.second);
  }
  return found;
}

// Each part of a tensor is an archive of its own, of which this opens its share alone.
Records find_in_dist_files(const fs::path& iteration, ManifestPart part) {
  const DistMetadata metadata(iteration / kDistMetadataFile);
  std::vector<std::pair<const DistTensor*, const DistBox*>> boxes;
  uint64_t total = 0;
  for (const DistTensor& tensor : metadata.tensors()) {
    if (is_of_optimizer(tensor.name) || is_extra_state(tensor.name)) continue;
    for (const DistBox& box : tensor.boxes) {
      boxes.emplace_back(&tensor, &box);
      total += box.bytes;
    }
  }
  std::ranges::sort(boxes, {}, [](const auto& entry) {
    return std::pair(entry.second->file, entry.second->begin);
  });
  Records found;
  Divider divider(part, total);
  for (const auto& [tensor, box] : boxes) {
    if (!divider.takes(box->bytes)) continue;
    const TorchFile file(iteration / metadata.files()[box->file], box->begin, box->bytes);
    found.add(file, tensor->name, file.tensor(file.pickle().root(), tensor->name).storage);
  }
  return found;
}

}  // namespace

uint64_t check_megatron_records(const fs::path& folder, ManifestPart part, int num_threads,
                                std::optional<int64_t> step) {
  const fs::path iteration = find_iteration(folder, step);
  const Records found = is_torch_dist_folder(iteration) ? find_in_dist_files(iteration, part)
                                                        : find_in_rank_files(iteration, part);
  check_records(found.records, num_threads);
  return found.num_unknown;
}

}  // namespace moetron
