// adamw_bench [millions of parameters] [threads] [rounds]: the update on the host beside torch's
// fused one and beside a triad of the same memory, taking turns. Bytes of memory read and written:
// 28 for a parameter in fp32, 30 with a bf16 copy past the caches, 34 where that copy is a pass of
// its own, 12 for an element of the triad.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iomanip>
#include <iostream>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

#include "moetron/optim/host_update.h"

namespace moetron {
namespace {

struct Contender {
  std::string name;
  double bytes;  // an element
  std::function<void()> run;
  std::vector<double> seconds = {};
};

constexpr AdamWCoefficients kCoefficients{1, 0.9999f, 0.1f, 0.95f, 0.05f, 1e-8f, -1e-3f};

HostPart make_part(int64_t count, at::ScalarType dtype) {
  std::vector<const void*> walked;
  const auto zeros = [&] {
    const at::Tensor made = zeros_apart_from(walked, count);
    walked.push_back(made.const_data_ptr());
    return made;
  };
  HostPart part{zeros().normal_(), zeros().normal_(), zeros(), zeros(), {}, kCoefficients};
  if (dtype == at::kFloat) return part;
  part.master = part.value;
  part.value = part.master.to(dtype);
  return part;
}

// sums = a + 3 b, past the caches where the processor can: nothing of `sums` is read.
void triad(float* sums, const float* a, const float* b, int64_t count) {
  int64_t i = 0;
#ifdef __SSE__
  for (; i < count && reinterpret_cast<uintptr_t>(sums + i) % 16 != 0; ++i)
    sums[i] = a[i] + 3 * b[i];
  for (; i + 4 <= count; i += 4) {
    const __m128 three_b = _mm_mul_ps(_mm_set1_ps(3), _mm_loadu_ps(b + i));
    _mm_stream_ps(sums + i, _mm_add_ps(_mm_loadu_ps(a + i), three_b));
  }
#endif
  for (; i < count; ++i) sums[i] = a[i] + 3 * b[i];
}

Contender triad_contender(const HostPart& part) {
  return {"triad", 12, [part] {
            at::parallel_for(0, part.grad.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
              triad(part.exp_avg.mutable_data_ptr<float>() + begin,
                    part.grad.const_data_ptr<float>() + begin,
                    part.exp_avg_sq.const_data_ptr<float>() + begin, end - begin);
            });
          }};
}

// As for parameters on a GPU: new values lie in the same two buffers again and again.
Contender chunked_contender(const HostPart& part) {
  constexpr int64_t kChunk = int64_t{1} << 22;
  return {"ours bf16, chunks", 30, [=] {
            for (int64_t begin = 0; begin < part.grad.numel(); begin += kChunk) {
              const int64_t count = std::min(kChunk, part.grad.numel() - begin);
              const int64_t slot =
                  std::min(begin / kChunk % 2 * kChunk, part.value.numel() - count);
              update_on_host({part.value.narrow(0, slot, count), part.grad.narrow(0, begin, count),
                              part.exp_avg.narrow(0, begin, count),
                              part.exp_avg_sq.narrow(0, begin, count),
                              part.master.narrow(0, begin, count), part.coefficients});
            }
          }};
}

// What torch.optim.AdamW(fused=True) calls.
Contender torch_contender(const std::string& name, const HostPart& part) {
  const std::vector<at::Tensor> values{part.value}, grads{part.grad}, exp_avgs{part.exp_avg},
      exp_avg_sqs{part.exp_avg_sq}, steps{at::ones({})};
  return {name, 28, [=] {
            at::_fused_adamw_(values, grads, exp_avgs, exp_avg_sqs, {}, steps, 1e-3, 0.9, 0.95, 0.1,
                              1e-8, /*amsgrad=*/false, /*maximize=*/false);
          }};
}

// What torch needs for the result of "ours bf16": the values read once more, and copied.
Contender with_copy(Contender update, const at::Tensor& value) {
  const at::Tensor copy = at::empty_like(value, value.options().dtype(at::kBFloat16));
  update.bytes += 6;
  update.run = [run = update.run, value, copy] {
    run();
    at::Tensor to = copy;
    to.copy_(value);
  };
  return update;
}

void measure(std::vector<Contender>& contenders, int rounds) {
  using Clock = std::chrono::steady_clock;
  for (int round = -1; round < rounds; ++round) {  // the first is not counted
    for (Contender& contender : contenders) {
      const auto begin = Clock::now();
      contender.run();
      const std::chrono::duration<double> taken = Clock::now() - begin;
      if (round >= 0) contender.seconds.push_back(taken.count());
    }
  }
}

void run(int64_t count, int rounds) {
  const HostPart fp32 = make_part(count, at::kFloat), bf16 = make_part(count, at::kBFloat16);
  const HostPart torchs{at::randn(count), at::randn(count), at::zeros(count), at::zeros(count)};
  std::vector<Contender> contenders{triad_contender(make_part(count, at::kFloat)),
                                    torch_contender("torch fused", torchs),
                                    torch_contender("torch, our memory", fp32)};
  contenders.push_back({"ours fp32", 28, [&] { update_on_host(fp32); }});
  contenders.push_back({"ours bf16", 30, [&] { update_on_host(bf16); }});
  contenders.push_back(chunked_contender(bf16));
  contenders.push_back(with_copy(torch_contender("torch, then bf16", torchs), torchs.value));
  const at::NoGradGuard no_grad;
  measure(contenders, rounds);
  std::cout << count / 1000000 << " M parameters, " << at::get_num_threads() << " threads, vectors "
            << (widest_vectors() == VectorWidth::kAvx512 ? "AVX-512"
                : widest_vectors() == VectorWidth::kAvx2 ? "AVX2"
                                                         : "baseline")
            << ": best (median) of " << rounds << "\n";
  for (Contender& contender : contenders) {
    std::sort(contender.seconds.begin(), contender.seconds.end());
    const double best = contender.seconds.front();
    const double median = contender.seconds[contender.seconds.size() / 2];
    const auto giga = [&](double seconds) { return static_cast<double>(count) / seconds / 1e9; };
    std::cout << std::left << std::setw(18) << contender.name << std::right << std::fixed
              << std::setprecision(2) << std::setw(7) << giga(best) << " (" << giga(median)
              << ") G elements/s" << std::setprecision(1) << std::setw(8)
              << contender.bytes * giga(best) << " (" << contender.bytes * giga(median)
              << ") GB/s\n";
  }
}

}  // namespace
}  // namespace moetron

int main(int argc, char** argv) {
  const auto number = [&](int place, int64_t otherwise) {
    return argc > place ? std::atoll(argv[place]) : otherwise;
  };
  at::set_num_threads(static_cast<int>(number(2, at::get_num_threads())));
  moetron::run(number(1, 64) * 1000000, static_cast<int>(number(3, 15)));
}
