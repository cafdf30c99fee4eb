#include "moetron/checkpoint/keep_checkpoints.h"

#include <string>
#include <system_error>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/set_aside.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// Why the checkpoint does not count; empty: it does.
std::string why_not_whole(const fs::path& folder) {
  try {
    check_checkpoint(folder);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

void remove(const fs::path& save, int64_t step) {
  const fs::path hidden = temporary_folder(save, step, choose_token());
  rename_durable(checkpoint_folder(save, step), hidden);
  std::error_code error;
  fs::remove_all(hidden, error);
  if (error) log_warning(concat("cannot delete ", hidden.string(), ": ", error.message()));
}

void move_damaged(const fs::path& save, int64_t step, const std::string& reason) {
  const fs::path place = set_damaged_aside(save, step);
  log_warning(concat("a damaged checkpoint was moved to ", place.string(), ": ", reason));
}

}  // namespace

void remove_old_checkpoints(const fs::path& save, const KeepRule& rule, int64_t saved) {
  if (rule.last == 0 && rule.every == 0) return;
  try {
    int64_t num_whole = 1;
    for (const int64_t step : list_steps(save)) {
      if (step >= saved) continue;  // newer ones are what a resume has passed over as damaged
      const fs::path folder = checkpoint_folder(save, step);
      std::error_code ignored;  // what is not there is not this folder
      if (!rule.loaded.empty() && fs::equivalent(folder, rule.loaded, ignored)) continue;
      if (const std::string reason = why_not_whole(folder); !reason.empty()) {
        move_damaged(save, step, reason);
        continue;
      }
      ++num_whole;
      const bool is_kept = num_whole <= rule.last || (rule.every > 0 && step % rule.every == 0);
      if (!is_kept) remove(save, step);
    }
  } catch (const Error& error) {
    log_warning(
        concat("older checkpoints in ", save.string(), " were left as they are: ", error.what()));
  }
}

}  // namespace moetron
