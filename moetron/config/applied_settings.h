// What comes of the settings that somebody gave: which act, which do nothing and why.
#pragma once

#include <string>
#include <vector>

#include "moetron/config/option_value.h"

namespace moetron {

struct AppliedSetting {
  Setting setting;
  // kNotYet: it was left out, and `why` says what is missing; kNoEffect: `why` says why.
  Standing standing = Standing::kWorks;
  std::string why;
  std::string mistake;  // it was left out; empty: none
  std::string remark;   // how it acts beside the others; empty: as it says
};

// The last of several settings of one option is the one that counts.
void keep_last(std::vector<Setting>& settings);

// Puts settings into the options of a command, each option at most once.
std::vector<AppliedSetting> apply_settings(Command command, std::vector<Setting> settings,
                                           Options& options);

// The names of their options.
std::vector<std::string> names_of(const std::vector<AppliedSetting>& settings);

// "pretrain needs --lr, --data-path": what the command cannot do without, and is not among the
// names given; or empty.
std::string missing_options(Command command, const std::vector<std::string>& given);

// Of `plan`: what stands beside --calibrate and belongs to a run or a search, or is for --calibrate
// and stands without it, in one sentence; or empty.
std::string misplaced_by_calibration(const Options& options, const std::vector<std::string>& given);

}  // namespace moetron
