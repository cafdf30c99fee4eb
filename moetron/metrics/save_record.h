// What is known of one save of a checkpoint, its JSON form and its line for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "moetron/base/json.h"

namespace moetron {

struct SaveRecord {
  int64_t step = 0;          // that was saved
  double stall_seconds = 0;  // that training stood still for it
  double write_seconds = 0;  // until all of it was on the disk, in its place
  int64_t bytes = 0;         // of its files
  double crossed = 0;        // the share of them that went from one rank to another, 0 to 1
  std::string failure;       // why it was not saved; empty: it was

  bool operator==(const SaveRecord&) const = default;
};

Json to_json(const SaveRecord& record);
// Throws InputError "PLACE: ..." for what to_json cannot have made.
SaveRecord parse_save_record(const Json& json, const std::string& place);

// "stall 0.12 s, write 3.4 s, 1.8 GB/s, 2 % of the bytes crossed ranks", the last of several ranks.
std::string describe(const SaveRecord& record, int num_ranks);

}  // namespace moetron
