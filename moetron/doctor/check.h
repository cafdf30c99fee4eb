// What one look at the machine has found, and how a list of such findings is told.
#pragma once

#include <string>
#include <vector>

namespace moetron {

enum class Verdict { kOk, kWarn, kFail };

struct Check {
  std::string name;  // "shared memory"
  Verdict verdict = Verdict::kOk;
  std::string finding;    // what is there, with its numbers
  std::string cure = {};  // what to do; empty where the verdict is ok
};

Check ok(const std::string& name, const std::string& finding);
// Runs will work, but slower, or not everywhere.
Check warn(const std::string& name, const std::string& finding, const std::string& cure);
// A run would not start, or not end well.
Check fail(const std::string& name, const std::string& finding, const std::string& cure);

// "warn  shared memory: 64 MiB: start the container with --shm-size 8g". What is not printable in
// it, as the environment may hold, becomes '?'.
std::string describe(const Check& check);
// How many of which verdict, and the first failure.
std::string summary(const std::vector<Check>& checks);
// {"checks": [{"name": ..., "verdict": ..., "finding": ..., "cure": ...}], "failed": 0}
std::string to_json_text(const std::vector<Check>& checks);
bool has_failure(const std::vector<Check>& checks);

}  // namespace moetron
