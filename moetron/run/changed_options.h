// What has changed between the run that a checkpoint comes from and the one that continues it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moetron/base/json.h"
#include "moetron/config/options.h"
#include "moetron/run/lr_schedule.h"

namespace moetron {

struct ChangedOption {
  std::string name;
  std::string before;
  std::string now;
  bool decides_training = false;  // nobody should find out later that it has changed
};

// The options in which two options_record()s differ, in the table's order; of an option that one of
// them does not know yet, or no more, nothing is said.
std::vector<ChangedOption> changed_options(const Json& before, const Json& now);

// Of the changes that decide how the run trains, those that --accept-changes does not name.
std::vector<std::string> not_accepted(const std::vector<ChangedOption>& changes,
                                      const std::vector<std::string>& accepted);

// A line for each change: its name, before, now; aligned, under a heading.
std::string change_table(const std::vector<ChangedOption>& changes);

// The number that an options_record() holds; 0 where it holds none.
int64_t recorded_number(const Json& record, const std::string& name);
// What decides the learning rate and weight decay of a step, as Megatron's optimizer-parameter
// scheduler keeps them in a checkpoint.
inline constexpr std::array<const char*, 10> kScheduleOptions = {"lr",
                                                                 "min-lr",
                                                                 "lr-decay-style",
                                                                 "lr-decay-iters",
                                                                 "lr-decay-samples",
                                                                 "lr-warmup-iters",
                                                                 "lr-warmup-samples",
                                                                 "lr-warmup-fraction",
                                                                 "lr-warmup-init",
                                                                 "weight-decay"};
// The options with those of them that an options_record() holds. A decay that ended with the run
// ends where that run did.
Options with_recorded_schedule(Options options, const Json& record);
// The learning rate that an options_record() asks for; none where its options have no meaning now.
std::optional<LrSchedule> recorded_learning_rate(const Json& record);

}  // namespace moetron
