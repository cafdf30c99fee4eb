#include "moetron/base/build.h"

#include "build_commit.h"

namespace moetron {

std::string build_identity() {
  return std::string(MOETRON_VERSION) + " (commit " + MOETRON_COMMIT + ")";
}

}  // namespace moetron
