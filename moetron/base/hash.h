// XXH3-128 as 32 lower-case hexadecimal digits: the checksum of checkpoints and caches.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace moetron {

std::string hash_hex(std::span<const std::byte> bytes);

}  // namespace moetron
