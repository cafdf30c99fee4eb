// How far numbers may be apart that were added up in different orders.
#pragma once

namespace moetron {

// What some 16 roundings to fp32 do to a number. Processors add in other orders and with other
// instructions, so a bound is a multiple of this and of the size of what is added up: of a sum
// whose terms may cancel, the terms' size.
inline constexpr double kRounding = 0x1p-20;

}  // namespace moetron
