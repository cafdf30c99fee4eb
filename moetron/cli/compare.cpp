// moetron compare A B: two models, tensor by tensor.
#include <cstdio>

#include "moetron/base/error.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/file_work.h"
#include "moetron/convert/compare_models.h"
#include "moetron/run/resolve.h"

namespace moetron {

int run_compare(const ParsedCommandLine& parsed) {
  const CompareOptions& options = parsed.options.compare;
  say_notices(parsed);
  validate(parsed.options, Command::kCompare, /*world_size=*/1);
  const Verify verify = verification(resolve_start(parsed.options).verify);
  for (const std::string& model : options.models) check_model_files(model, nullptr, verify);
  BlockProgress progress;
  CompareSettings settings{
      options.atol, options.rtol, file_threads(parsed.options.runtime.num_threads),
      [&](uint64_t done, uint64_t total) { progress.show("compares tensor", done, total); }};
  const ModelComparison comparison = compare_models(options.models[0], options.models[1], settings);
  progress.hide();
  std::fputs(describe(comparison, options.top).c_str(), stdout);
  return comparison.differs() ? kExitDiffers : kExitDone;
}

}  // namespace moetron
