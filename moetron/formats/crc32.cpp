#include "moetron/formats/crc32.h"

#include <array>

namespace moetron {
namespace {

constexpr size_t kBytesAtOnce = 8;
using Table = std::array<uint32_t, 256>;

// Table t has the effect of a byte that t others follow.
constexpr std::array<Table, kBytesAtOnce> make_tables() {
  std::array<Table, kBytesAtOnce> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0xedb88320u : 0);
    tables[0][byte] = value;
  }
  for (size_t t = 1; t < kBytesAtOnce; ++t)
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t value = tables[t - 1][byte];
      tables[t][byte] = value >> 8 ^ tables[0][value & 0xff];
    }
  return tables;
}

constexpr std::array<Table, kBytesAtOnce> kTables = make_tables();

}  // namespace

uint32_t crc32(std::span<const std::byte> bytes, uint32_t before) {
  uint32_t crc = ~before;
  const auto at = [&](size_t i) { return std::to_integer<uint32_t>(bytes[i]); };
  for (; bytes.size() >= kBytesAtOnce; bytes = bytes.subspan(kBytesAtOnce)) {
    const uint32_t low = crc ^ (at(0) | at(1) << 8 | at(2) << 16 | at(3) << 24);
    crc = kTables[7][low & 0xff] ^ kTables[6][low >> 8 & 0xff] ^ kTables[5][low >> 16 & 0xff] ^
          kTables[4][low >> 24] ^ kTables[3][at(4)] ^ kTables[2][at(5)] ^ kTables[1][at(6)] ^
          kTables[0][at(7)];
  }
  for (size_t i = 0; i < bytes.size(); ++i) crc = crc >> 8 ^ kTables[0][(crc ^ at(i)) & 0xff];
  return ~crc;
}

}  // namespace moetron
