// moetron convert: a model in one format or type into another.
#include <cstdio>
#include <string_view>

#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/file_work.h"
#include "moetron/convert/convert_model.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

// "5GB" in bytes.
uint64_t parse_shard_size(const std::string& text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr Unit kUnits[] = {{"MB", 1e6},        {"GB", 1e9},           {"TB", 1e12},
                             {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0}};
  std::string_view unit = text;
  const auto number = take_number<double>(unit);
  for (const Unit& known : kUnits) {
    if (number && unit == known.name && *number > 0 && *number * known.bytes < 1e18)
      return static_cast<uint64_t>(*number * known.bytes);
  }
  throw ConfigError(
      concat("shard-size (", text, ") must be a number above 0 with MB, GB, TB, MiB, GiB or TiB"));
}

void say_report(const ConvertReport& report, const std::string& save) {
  const double gigabytes = static_cast<double>(report.bytes) / 1e9;
  std::printf("wrote %s: %llu tensors, %.3f GB in %d file%s, %.1f s (%.2f GB/s)\n", save.c_str(),
              static_cast<unsigned long long>(report.num_tensors), gigabytes, report.num_files,
              report.num_files == 1 ? "" : "s", report.seconds, gigabytes / report.seconds);
  if (report.verify_seconds > 0)
    std::printf("read it again: the same bits (%.1f s)\n", report.verify_seconds);
}

}  // namespace

int run_convert(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  say_notices(parsed);
  validate(options, Command::kConvert, /*world_size=*/1);
  ConvertSettings settings;
  settings.dtype = options.convert.dtype;
  settings.shard_bytes = parse_shard_size(options.convert.shard_size);
  settings.num_threads = file_threads(options.runtime.num_threads);
  settings.verify = options.checkpoint.verify.value_or(false);
  BlockProgress progress;
  settings.progress = [&](const char* what, uint64_t done, uint64_t total) {
    progress.show(what, done, total);
  };
  check_model_files(options.checkpoint.load, nullptr, verification(resolve_start(options).verify));
  const ConvertReport report =
      convert_hf_model(options.checkpoint.load, options.checkpoint.save, settings);
  progress.hide();
  say_report(report, options.checkpoint.save);
  return kExitDone;
}

}  // namespace moetron
