#include "moetron/base/random.h"

#include <cmath>
#include <numbers>

namespace moetron {
namespace {

// FNV-1a, 64 bits: names become keys.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Four normals from one Philox block.
std::array<float, 4> normals(const std::array<uint32_t, 4>& bits) {
  std::array<float, 4> out{};
  for (int pair = 0; pair < 2; ++pair) {
    const double u = (bits[2 * pair] + 1.0) * 0x1p-32;  // (0, 1]
    const double angle = 2.0 * std::numbers::pi * (bits[2 * pair + 1] * 0x1p-32);
    const double radius = std::sqrt(-2.0 * std::log(u));
    out[2 * pair] = static_cast<float>(radius * std::cos(angle));
    out[2 * pair + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return out;
}

}  // namespace

std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> c = {
      static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
      static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

RandomStream::RandomStream(uint64_t seed, uint64_t step, std::string_view name)
    : key_(hash_name(name) ^ (seed * 0x9E3779B97F4A7C15u)), step_(step) {}

double RandomStream::uniform(uint64_t index) const {
  return philox(key_, index, step_)[0] * 0x1p-32;
}

void RandomStream::fill_normal(std::span<float> values, uint64_t first_index, float std) const {
  uint64_t block = ~uint64_t{0};
  std::array<float, 4> drawn{};
  for (uint64_t i = 0; i < values.size(); ++i) {
    const uint64_t index = first_index + i;
    if (index / 4 != block) {
      block = index / 4;
      drawn = normals(philox(key_, block, step_));
    }
    values[i] = drawn[index % 4] * std;
  }
}

}  // namespace moetron
