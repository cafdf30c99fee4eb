// Which of several ways to do the same is the fastest on this GPU.
#pragma once

#include <cuda_runtime_api.h>
#include <functional>

namespace moetron {

// run(i) launches way i of `count` on `stream`; each runs a few times. Waits for the GPU.
int fastest_of(int count, cudaStream_t stream, const std::function<void(int)>& run);

}  // namespace moetron
