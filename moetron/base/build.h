// Which program this is.
#pragma once

#include <string>

namespace moetron {

// "0.1.0 (commit 0123456789ab)"; "+changes" behind the commit where the sources had some that were
// not committed, and "unknown" in its place where they had no repository.
std::string build_identity();

}  // namespace moetron
