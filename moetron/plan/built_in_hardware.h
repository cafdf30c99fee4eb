// The text of a file of configs/hardware/, which the build puts into the program.
#pragma once

namespace moetron {

extern const char* const kBuiltInHardware;

}  // namespace moetron
