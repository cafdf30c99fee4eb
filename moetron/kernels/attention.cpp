#include "moetron/kernels/attention.h"

#include <algorithm>
#include <bit>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"

#ifdef MOETRON_CUDA
#include <ATen/cudnn/Handle.h>
#include <c10/cuda/CUDAGuard.h>

#include "moetron/kernels/cuda/attention_graph.h"
#include "moetron/kernels/cuda/packed_bounds.h"
#include "moetron/kernels/kernel_caches.h"
#include "moetron/kernels/timed_choices.h"
#endif

namespace moetron {

bool has_attention(const at::Tensor& q, const at::Tensor& v) {
  constexpr int64_t kWidest = 128;
  const int64_t width = q.size(3), value_width = v.size(3);
  const bool is_latent = width == 192 && value_width == 128;
  const bool has_widths =
      width <= kWidest && value_width <= kWidest && width % 8 == 0 && value_width % 8 == 0;
  return is_gpu_bf16(q) && q.size(1) > 1 && (is_latent || has_widths);
}

#ifdef MOETRON_CUDA

namespace {

constexpr int kTriedPlans = 8;
constexpr int64_t kMostPairBytes = int64_t{4} << 30;
constexpr int64_t kFewestSequences = 16;  // that packed documents are planned for

using Documents = std::optional<PackedDocuments>;

int64_t power_of_two(int64_t least) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(least)));
}

// What `memory` says of packed sequences.
struct PackedBounds {
  at::Tensor lengths, begins;

  PackedBounds(const AttentionShape& shape, const at::Tensor& bounds) {
    const std::vector<int64_t> strides = token_strides(shape);
    const auto num_strides = static_cast<int64_t>(strides.size());
    lengths = at::empty({shape.sequences}, bounds.options());
    begins = at::empty({num_strides, shape.sequences + 1}, bounds.options().dtype(at::kLong));
    PackedBoundsArgs args{.bounds = bounds.const_data_ptr<int32_t>(),
                          .documents = static_cast<int>(bounds.size(0)) - 1,
                          .sequences = static_cast<int>(shape.sequences),
                          .lengths = lengths.data_ptr<int32_t>(),
                          .begins = begins.data_ptr<int64_t>(),
                          .num_strides = static_cast<int>(num_strides),
                          .strides = {}};
    MT_CHECK(num_strides <= kMostTokenStrides, num_strides, " strides of tokens");
    std::copy(strides.begin(), strides.end(), args.strides);
    launch_packed_bounds(args, current_stream(bounds));
  }
};

void run(const AttentionShape& shape, AttentionMemory memory, const at::Tensor& q,
         const Documents& documents) {
  std::optional<PackedBounds> packed;
  if (documents) {
    packed.emplace(shape, documents->bounds);
    memory.lengths = packed->lengths.const_data_ptr<int32_t>();
    memory.begins = packed->begins.const_data_ptr<int64_t>();
  }
  const bool takes_first = shape.deterministic || documents.has_value();
  auto& choices = KernelCaches::of_process().of<TimedChoices<AttentionShape, AttentionGraph>>();
  const cudnnHandle_t handle = at::native::getCudnnHandle();  // this thread's, on torch's stream
  choices.run(
      shape, q, /*may_try=*/true,
      [&] {
        return std::make_shared<const AttentionGraph>(handle, shape, takes_first ? 1 : kTriedPlans);
      },
      [&](const AttentionGraph& graph, int plan, void* workspace) {
        graph.run(plan, handle, memory, workspace);
      });
}

// Those of a dim with one element mean nothing: as if the tensor were dense.
HeadsLayout layout(const at::Tensor& x) {
  const auto stride = [&](int64_t dim, int64_t dense) {
    return x.size(dim) > 1 ? x.stride(dim) : dense;
  };
  const int64_t head = stride(2, x.size(3));
  const int64_t token = stride(1, x.size(2) * head);
  return {.heads = x.size(2),
          .width = x.size(3),
          .sequence_stride = stride(0, x.size(1) * token),
          .token_stride = token,
          .head_stride = head};
}

// As it is where cuDNN takes it: rows of 16-byte pieces that lie apart, and if it `packs` tokens
// that lie equally far apart over all sequences.
at::Tensor plain(const at::Tensor& x, bool packs) {
  MT_CHECK(is_gpu_bf16(x) && x.dim() == 4, "attention by cuDNN of ", x.dtype(), " [", x.sizes(),
           "] on ", x.device());
  const HeadsLayout at = layout(x);
  bool fits = x.stride(3) == 1 && has_aligned_rows(x, x.size(3));
  fits = fits && (!packs || at.sequence_stride == x.size(1) * at.token_stride);
  for (int64_t stride : {at.sequence_stride, at.token_stride, at.head_stride}) {
    fits = fits && stride > 0 && stride % 8 == 0;
  }
  return fits ? x : x.clone(at::MemoryFormat::Contiguous);
}

AttentionShape shape_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const at::Tensor& mixed, double softmax_scale, bool deterministic,
                        const Documents& documents) {
  const auto fits = [&](const at::Tensor& x, int64_t heads, int64_t width) {
    return x.size(0) == q.size(0) && x.size(1) == q.size(1) && x.size(2) == heads &&
           x.size(3) == width;
  };
  MT_CHECK(fits(k, k.size(2), q.size(3)) && fits(v, k.size(2), v.size(3)) &&
               fits(mixed, q.size(2), v.size(3)) && q.size(2) % k.size(2) == 0,
           "attention of q [", q.sizes(), "], k [", k.sizes(), "] and v [", v.sizes(), "] to [",
           mixed.sizes(), "]");
  AttentionShape shape{.device = static_cast<int>(q.get_device()),
                       .deterministic = deterministic,
                       .sequences = q.size(0),
                       .tokens = q.size(1),
                       .softmax_scale = softmax_scale,
                       .q = layout(q),
                       .k = layout(k),
                       .v = layout(v),
                       .mixed = layout(mixed)};
  if (!documents) return shape;
  const at::Tensor& bounds = documents->bounds;
  MT_CHECK(bounds.is_cuda() && bounds.scalar_type() == at::kInt && bounds.is_contiguous() &&
               bounds.size(0) > 1 && documents->longest <= q.size(1),
           "bounds of documents: ", bounds.dtype(), " [", bounds.sizes(), "] on ", bounds.device(),
           ", the longest has ", documents->longest, " tokens of a sequence's ", q.size(1));
  shape.sequences = std::max(kFewestSequences, power_of_two(bounds.size(0) - 1));
  shape.packed_tokens = q.size(0) * q.size(1);
  // Room for longer ones costs nothing, but where pairs are written.
  if (deterministic) shape.tokens = std::min(q.size(1), power_of_two(documents->longest));
  return shape;
}

struct Backward {
  at::Tensor d_mixed, q, k, v, mixed, log_sums, d_q, d_k, d_v;

  // That of the heads that share keys and values [first, first + count).
  Backward groups(int64_t first, int64_t count) const {
    const int64_t repeats = q.size(2) / k.size(2);
    const auto queries = [&](const at::Tensor& x) {
      return x.narrow(2, first * repeats, count * repeats);
    };
    const auto shared = [&](const at::Tensor& x) { return x.narrow(2, first, count); };
    return {queries(d_mixed), queries(q),
            shared(k),        shared(v),
            queries(mixed),   log_sums.narrow(1, first * repeats, count * repeats).contiguous(),
            queries(d_q),     shared(d_k),
            shared(d_v)};
  }

  // `shape`: the forward's, of these heads.
  void run(AttentionShape shape, const Documents& documents) const {
    shape.backward = true;
    shape.d_mixed = layout(d_mixed);
    shape.d_q = layout(d_q);
    shape.d_k = layout(d_k);
    shape.d_v = layout(d_v);
    const AttentionMemory memory{.q = q.const_data_ptr(),
                                 .k = k.const_data_ptr(),
                                 .v = v.const_data_ptr(),
                                 .mixed = mixed.data_ptr(),
                                 .log_sums = log_sums.data_ptr(),
                                 .d_mixed = d_mixed.const_data_ptr(),
                                 .d_q = d_q.data_ptr(),
                                 .d_k = d_k.data_ptr(),
                                 .d_v = d_v.data_ptr()};
    moetron::run(shape, memory, q, documents);
  }
};

}  // namespace

AttentionResult attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  double softmax_scale, bool deterministic,
                                  const Documents& documents) {
  const c10::cuda::CUDAGuard guard(q.device());
  const bool packs = documents.has_value();
  const at::Tensor queries = plain(q, packs), keys = plain(k, packs), values = plain(v, packs);
  const int64_t sequences = packs ? 1 : q.size(0);
  const AttentionResult output{at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options()),
                               at::empty({sequences, q.size(2), q.size(0) * q.size(1) / sequences},
                                         q.options().dtype(at::kFloat))};
  const AttentionMemory memory{.q = queries.const_data_ptr(),
                               .k = keys.const_data_ptr(),
                               .v = values.const_data_ptr(),
                               .mixed = output.mixed.data_ptr(),
                               .log_sums = output.log_sums.data_ptr()};
  run(shape_of(queries, keys, values, output.mixed, softmax_scale, deterministic, documents),
      memory, q, documents);
  return output;
}

AttentionGrads attention_backward(const at::Tensor& d_mixed, const at::Tensor& q,
                                  const at::Tensor& k, const at::Tensor& v,
                                  const AttentionResult& output, double softmax_scale,
                                  bool deterministic, const Documents& documents) {
  const c10::cuda::CUDAGuard guard(q.device());
  const AttentionGrads grads{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), k.options()),
                             at::empty(v.sizes(), v.options())};
  const bool packs = documents.has_value();
  // With bounds, cuDNN 9.19 writes d_q as if its tokens lay as far apart as those of q.
  const at::Tensor queries = packs ? q.contiguous() : q;
  const Backward whole{plain(d_mixed, packs),
                       plain(queries, packs),
                       plain(k, packs),
                       plain(v, packs),
                       output.mixed,
                       output.log_sums,
                       grads.d_q,
                       grads.d_k,
                       grads.d_v};
  const auto shape = [&](const Backward& part) {
    return shape_of(part.q, part.k, part.v, part.mixed, softmax_scale, deterministic, documents);
  };
  const int64_t groups = k.size(2);
  int64_t at_once = groups;
  if (deterministic) {
    const AttentionShape all = shape(whole);
    const int64_t pair_bytes = 2 * all.sequences * (q.size(2) / groups) * all.tokens * all.tokens;
    at_once = std::clamp<int64_t>(kMostPairBytes / pair_bytes, 1, groups);
  }
  for (int64_t first = 0; first < groups; first += at_once) {
    const Backward part = whole.groups(first, std::min(at_once, groups - first));
    part.run(shape(part), documents);
  }
  return grads;
}

#else

AttentionResult attention_forward(const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                                  bool, const std::optional<PackedDocuments>&) {
  throw InternalError("attention by cuDNN in a build without CUDA");
}

AttentionGrads attention_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                  const at::Tensor&, const AttentionResult&, double, bool,
                                  const std::optional<PackedDocuments>&) {
  throw InternalError("attention by cuDNN in a build without CUDA");
}

#endif

}  // namespace moetron
