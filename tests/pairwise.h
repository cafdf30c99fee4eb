// Pairs of values of two settings that test cases should bring together, and have not yet.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "moetron/base/error.h"

namespace moetron {

// The value of every setting of a case, as a small number.
using SettingValues = std::vector<int64_t>;

class PairSet {
 public:
  // With each, every pair of two settings of `values`.
  void insert(const SettingValues& values) { set_all(values, true); }
  void erase(const SettingValues& values) { set_all(values, false); }

  // How many of the pairs of `values` are here: all, or those of one setting with the ones before.
  int count(const SettingValues& values) const {
    int sum = 0;
    for (size_t b = 0; b < values.size(); ++b) sum += count_before(values, b);
    return sum;
  }
  int count_before(const SettingValues& values, size_t b) const {
    int sum = 0;
    for (size_t a = 0; a < b; ++a)
      sum += pairs_[place(a, values[a]) * kPlaces + place(b, values[b])];
    return sum;
  }
  // Pairs of this value of a setting with any value of any later one.
  int count_later(size_t setting, int64_t value) const {
    const auto begin = pairs_.begin() + static_cast<int64_t>(place(setting, value) * kPlaces);
    return static_cast<int>(std::count(begin, begin + kPlaces, true));
  }

  std::vector<std::string> texts() const {
    std::vector<std::string> found;
    for (size_t pair = 0; pair < pairs_.size(); ++pair) {
      if (!pairs_[pair]) continue;
      const size_t a = pair / kPlaces, b = pair % kPlaces;
      found.push_back(concat("setting ", a / kMost, " = ", a % kMost, " with setting ", b / kMost,
                             " = ", b % kMost));
    }
    return found;
  }

 private:
  static constexpr size_t kMost = 16;  // settings, and values of one
  static constexpr size_t kPlaces = kMost * kMost;

  static size_t place(size_t setting, int64_t value) {
    MT_CHECK(setting < kMost && value >= 0 && value < static_cast<int64_t>(kMost), "setting ",
             setting, " has the value ", value);
    return setting * kMost + static_cast<size_t>(value);
  }
  void set_all(const SettingValues& values, bool value) {
    for (size_t b = 0; b < values.size(); ++b) {
      for (size_t a = 0; a < b; ++a) {
        pairs_[place(a, values[a]) * kPlaces + place(b, values[b])] = value;
      }
    }
  }

  std::vector<bool> pairs_ = std::vector<bool>(kPlaces * kPlaces);
};

}  // namespace moetron
