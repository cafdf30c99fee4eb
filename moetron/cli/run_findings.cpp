#include "moetron/cli/run_findings.h"

#include <filesystem>

#include "moetron/arch/inventory.h"
#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/stored_weights.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/train/start.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

}  // namespace

void RunFindings::miss(const std::string& option, const std::string& place) {
  absent += concat(absent.empty() ? "" : ", ", option, " ", place);
}

void find_model(Options& options, RunFindings& found) {
  const fs::path load = options.checkpoint.load;
  for (const fs::path& folder : {fs::path(options.checkpoint.save), load}) {
    const std::vector<int64_t> steps = folder.empty() ? std::vector<int64_t>{} : list_steps(folder);
    if (steps.empty()) continue;
    find_model(resolve_start(options), found.facts);
    return;
  }
  if (load.empty()) return;
  if (!path_exists(load)) {
    found.miss("load", load.string());
    options.checkpoint.load.clear();
    options.checkpoint.load_layers.clear();
    return;
  }
  find_model(resolve_start(options), found.facts);
}

void find_vocabulary(const Options& options, RunFindings& found) {
  const TokenizerSpec spec{options.tokenizer.tokenizer, options.tokenizer.tokenizer_model};
  if (spec.path.empty() || path_exists(spec.path)) {
    if (const auto tokenizer = open_tokenizer(spec))
      found.facts.tokenizer = {tokenizer->vocab_size(), tokenizer->base_vocab_size()};
    return;
  }
  found.miss("tokenizer-model", spec.path);
  found.facts.tokenizer = assumed_vocabulary(options, found.facts);
  if (!found.facts.tokenizer) return;
  found.assumed = concat("; the tokenizer is taken for the family's released one of ",
                         found.facts.tokenizer->size, " tokens");
}

Hardware planned_hardware(const Options& options) {
  return hardware_of(options.runtime.hardware);
}

void check_planned_device(const Options& options, const RunSpec& spec, const Hardware& hardware) {
  if (options.runtime.device == DeviceKind::kCpu || !spec.fp8) return;
  MT_CHECK_CONFIG(!spec.fp8->gradients_in_e5m2,
                  "fp8-format (hybrid) works on CPUs alone (device "
                  "cpu); on a GPU, as of ",
                  hardware.name, ", it must be e4m3");
  MT_CHECK_CONFIG(spec.dtype == Dtype::kBf16, "fp8-format on a GPU, as of ", hardware.name,
                  ", needs dtype (fp32) to be bf16");
  // What is summed over; parts along it are multiples of more.
  constexpr int64_t kMultiple = 16;
  const std::string router = std::string(tensors::kRouter) + tensors::kRouterWeight.name;
  for (const TensorInfo& tensor : tensor_inventory(spec.model)) {
    const bool has_products = tensor.layer >= 0 && tensor.shape.size() > 1 && !tensor.is_buffer &&
                              !tensor.name.ends_with(router) && spec.fp8->has_layer(tensor.layer);
    MT_CHECK_CONFIG(!has_products || tensor.shape.back() % kMultiple == 0,
                    "fp8-format on a GPU, as of ", hardware.name,
                    ", needs sizes that are multiples of ", kMultiple, "; ", tensor.name, " is [",
                    tensor.shape[0], ", ", tensor.shape.back(), "]");
  }
}

}  // namespace moetron
