#include "moetron/kernels/kernel_caches.h"

namespace moetron {

KernelCaches& KernelCaches::of_process() {
  static auto* const caches = new KernelCaches;
  return *caches;
}

}  // namespace moetron
