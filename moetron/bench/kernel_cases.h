// Kernels of a layer as cases to be timed, of operands in any place: fresh random data, which live
// as long as a case's visit.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/arch/model_config.h"

namespace moetron {

// What a device reaches at its best, each a second.
struct Ceilings {
  double copied_bytes = 0;  // read and written
  double product_flops = 0;
};

struct KernelCase {
  std::string name;
  std::string shape;
  double bytes = 0;  // that must be read and written: each input and each output once
  double flops = 0;
  std::function<void()> run;
  std::function<void()> prepare = {};  // before each run, not timed; null: nothing

  // Seconds that no kernel can beat.
  double floor(const Ceilings& ceilings) const;
  // Whether the bytes, not the FLOPs, set the floor.
  bool is_memory_bound(const Ceilings& ceilings) const;
};

using VisitCase = std::function<void(const KernelCase&)>;

// Where operands lie, and of what type they are.
struct CasePlace {
  c10::Device device;
  at::ScalarType dtype;

  at::Tensor random(at::IntArrayRef sizes) const;
};

// What the tensors that are defined hold, each element once.
double bytes_of(std::initializer_list<at::Tensor> tensors);
double product_flops(int64_t rows, int64_t in, int64_t out);
std::string shape_text(const at::Tensor& x);

struct Linear {
  const char* name;
  int64_t in, out;
};

// Of a layer with experts, and the head: all but those of the experts and the router.
std::vector<Linear> dense_products(const ModelConfig& model);

// Forward, backward and both kinds of weight gradient of a product of `tokens` rows.
void visit_dense_product(const CasePlace& place, const Linear& linear, int64_t tokens,
                         const VisitCase& visit);
// The same of all experts together: ends [experts] int32 on the device, where each one's rows end.
// Weight gradients where the device has a kernel for them.
void visit_grouped_product(const CasePlace& place, const Linear& linear, int64_t rows,
                           const at::Tensor& ends, const VisitCase& visit);
// The residual stream's norms come with a sum; those of latents do not.
void visit_norm(const CasePlace& place, int64_t tokens, int64_t size, bool is_latent,
                const VisitCase& visit);
// weights: of the routed experts' rows; undefined for a shared expert.
void visit_swiglu(const CasePlace& place, int64_t rows, int64_t width, const at::Tensor& weights,
                  const VisitCase& visit);
// Tokens to rows and back (kernels/row_map.h), on a GPU. row_of_choice [tokens, top_k].
void visit_row_moves(const CasePlace& place, int64_t hidden, const at::Tensor& row_of_choice,
                     const VisitCase& visit);

}  // namespace moetron
