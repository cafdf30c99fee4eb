// For tests of readers: every truncation of a small file, then random damage for a while. The
// reader must either throw InputError or leave an object that can be used.
#pragma once

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "moetron/base/error.h"

namespace moetron {

inline void dump(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// On a slow machine, too, so many are damaged at random.
constexpr int kLeastDamaged = 300;

// Calls read(damaged) for every proper prefix of `good`, then for `seconds` with bytes changed,
// inserted or cut. Returns how many calls came back without an error.
template <class Read>
int read_damaged(const std::string& good, double seconds, const Read& read) {
  int accepted = 0;
  const auto attempt = [&](const std::string& damaged) {
    try {
      read(damaged);
      ++accepted;
    } catch (const InputError& error) {
      EXPECT_STRNE(error.what(), "");
    }
  };
  for (size_t length = 0; length < good.size(); ++length) attempt(good.substr(0, length));
  std::mt19937 random(17);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (int i = 0; i < kLeastDamaged || std::chrono::steady_clock::now() < end; ++i) {
    std::string damaged = good;
    const int changes = 1 + static_cast<int>(random() % 4);
    for (int change = 0; change < changes && !damaged.empty(); ++change) {
      const size_t at = random() % damaged.size();
      const auto byte = static_cast<char>(random());
      switch (random() % 5) {
        case 0:
          damaged[at] = byte;
          break;
        case 1:
          damaged.insert(at, 1, byte);
          break;
        case 2:
          damaged.erase(at, 1 + random() % 8);
          break;
        case 3:
          damaged[at] = "\xff\x7f\x80\x00 09{}[]\",-"[random() % 14];
          break;
        default:
          damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
      }
    }
    attempt(damaged);
  }
  return accepted;
}

}  // namespace moetron
