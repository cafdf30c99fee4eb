// CRC-32 of zip files (the polynomial of ISO 3309).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace moetron {

// Of `bytes` behind those that gave `before`; 0 before the first.
uint32_t crc32(std::span<const std::byte> bytes, uint32_t before = 0);

}  // namespace moetron
