#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/checkpoint/slice_reader.h"
#include "moetron/checkpoint/tensor_file.h"
#include "moetron/formats/safetensors.h"

namespace moetron {
namespace {

constexpr std::string_view kMaster = "master.";

void read_state(const SafetensorsFile& file, const NamedSlice& slice, const std::string& name) {
  const SafetensorsEntry& entry = file.at(name);
  const SafetensorsDtype wanted = stored_dtype(slice.view.scalar_type());
  const auto shape_text = [](const std::vector<int64_t>& shape) { return Json(shape).dump(); };
  const std::vector<int64_t> needed = shape_in_file(slice.name, slice.global_shape);
  MT_CHECK_INPUT(entry.shape == needed, file.path().string(), ": tensor ", name, " has the shape ",
                 shape_text(entry.shape), ", the run needs ", shape_text(needed));
  MT_CHECK_INPUT(is_convertible(entry.dtype, wanted), file.path().string(), ": tensor ", name,
                 " is ", dtype_name(entry.dtype), ", the run needs ", dtype_name(wanted));
  fill_slice(slice, {entry.dtype, file.bytes(entry)});
}

// What this rank holds of the optimizer's state, and fp32 weights from their masters.
void read_states(const std::filesystem::path& folder, const std::vector<NamedSlice>& weights,
                 const std::vector<NamedSlice>& states) {
  const SafetensorsFile file(folder / kOptimizerFile);
  for (const NamedSlice& slice : weights) {
    const std::string master = concat(kMaster, slice.name);
    const bool is_better = slice.view.scalar_type() == at::kFloat && file.find(master) != nullptr;
    if (is_better) read_state(file, slice, master);
  }
  std::vector<NamedSlice> from_weights;
  for (const NamedSlice& slice : states) {
    if (slice.name.starts_with(kMaster) && file.find(slice.name) == nullptr) {
      from_weights.push_back(slice);
      from_weights.back().name = slice.name.substr(kMaster.size());
    } else {
      read_state(file, slice, slice.name);
    }
  }
  if (!from_weights.empty()) load_some_weights(folder, from_weights);
}

}  // namespace

Json load_checkpoint(const std::filesystem::path& folder, const std::vector<NamedSlice>& weights,
                     const std::vector<NamedSlice>& states, Communicator* world) {
  // Whether any rank wants weights, and states: bits 0 and 1.
  int64_t wanted = 0;
  const std::vector<int64_t> wants = on_all_ranks(world, [&] {
    check_checkpoint(folder);
    return int64_t{!weights.empty()} | int64_t{!states.empty()} << 1;
  });
  for (const int64_t want : wants) wanted |= want;
  if (wanted & 1) load_weights(folder, weights, world);
  Json trainer;
  on_all_ranks(world, [&] {
    if (wanted & 2) read_states(folder, weights, states);
    trainer = read_json(folder / kTrainerFile);
    return 0;
  });
  return trainer;
}

}  // namespace moetron
