#include "moetron/kernels/cuda/attention_graph.h"

#include <algorithm>
#include <set>
#include <string>
#include <unordered_map>

#define CUDNN_FRONTEND_SKIP_JSON_LIB  // its copy of nlohmann-json would stand beside ours
#include <cudnn_frontend.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

namespace frontend = cudnn_frontend;
using frontend::graph::Graph;
using Tensor = std::shared_ptr<frontend::graph::Tensor_attributes>;

// kBegins: of the first of token_strides(), those of the others behind it.
enum TensorId : int64_t {
  kQ = 1,
  kK,
  kV,
  kMixed,
  kLogSums,
  kDMixed,
  kDQ,
  kDK,
  kDV,
  kLengths,
  kBegins
};

void check(frontend::error_t status, const char* what) {
  MT_CHECK(status.is_good(), "cuDNN's ", what, " of attention: ", status.get_message());
}

// Adds the tensors and operations of a shape to a graph.
class GraphMaker {
 public:
  GraphMaker(Graph& graph, const AttentionShape& shape)
      : graph_(graph), shape_(shape), strides_(token_strides(shape)) {
    if (shape.packed_tokens == 0) return;
    lengths_ = whole_numbers(kLengths, frontend::DataType_t::INT32, shape.sequences);
    for (size_t i = 0; i < strides_.size(); ++i) {
      begins_.push_back(whole_numbers(kBegins + static_cast<int64_t>(i),
                                      frontend::DataType_t::INT64, shape.sequences + 1));
    }
  }

  void add_forward() {
    auto attributes = frontend::graph::SDPA_attributes()
                          .set_name("attention")
                          .set_generate_stats(true)
                          .set_causal_mask(true)
                          .set_attn_scale(static_cast<float>(shape_.softmax_scale));
    mask_padding(attributes);
    const auto [mixed, log_sums] =
        graph_.sdpa(input(kQ, shape_.q), input(kK, shape_.k), input(kV, shape_.v), attributes);
    lay_out_result(mixed, kMixed, shape_.mixed);
    lay_out_log_sums(*log_sums);
    log_sums->set_output(true);
  }

  void add_backward() {
    auto attributes = frontend::graph::SDPA_backward_attributes()
                          .set_name("attention_backward")
                          .set_causal_mask(true)
                          .set_attn_scale(static_cast<float>(shape_.softmax_scale))
                          .set_deterministic_algorithm(shape_.deterministic);
    mask_padding(attributes);
    if (shape_.packed_tokens > 0) {
      attributes.set_max_total_seq_len_q(shape_.packed_tokens)
          .set_max_total_seq_len_kv(shape_.packed_tokens);
    }
    frontend::graph::Tensor_attributes log_sums;
    lay_out_log_sums(log_sums);
    const auto [d_q, d_k, d_v] = graph_.sdpa_backward(
        input(kQ, shape_.q), input(kK, shape_.k), input(kV, shape_.v), input(kMixed, shape_.mixed),
        input(kDMixed, shape_.d_mixed), graph_.tensor(log_sums), attributes);
    lay_out_result(d_q, kDQ, shape_.d_q);
    lay_out_result(d_k, kDK, shape_.d_k);
    lay_out_result(d_v, kDV, shape_.d_v);
  }

 private:
  Tensor whole_numbers(int64_t id, frontend::DataType_t type, int64_t count) {
    return graph_.tensor(frontend::graph::Tensor_attributes()
                             .set_uid(id)
                             .set_data_type(type)
                             .set_dim({count, 1, 1, 1})
                             .set_stride({1, 1, 1, 1}));
  }

  template <class Attributes>
  void mask_padding(Attributes& attributes) const {
    if (shape_.packed_tokens == 0) return;
    attributes.set_padding_mask(true).set_seq_len_q(lengths_).set_seq_len_kv(lengths_);
  }

  // The tensor's sequences begin where those of a tensor with such tokens do.
  void pack(frontend::graph::Tensor_attributes& tensor, int64_t token_stride) const {
    if (shape_.packed_tokens == 0) return;
    const auto place = std::lower_bound(strides_.begin(), strides_.end(), token_stride);
    tensor.set_ragged_offset(begins_[static_cast<size_t>(place - strides_.begin())]);
  }

  void lay_out(frontend::graph::Tensor_attributes& tensor, TensorId id,
               const HeadsLayout& x) const {
    tensor.set_uid(id)
        .set_dim({shape_.sequences, x.heads, shape_.tokens, x.width})
        .set_stride({x.sequence_stride, x.head_stride, x.token_stride, 1});
    pack(tensor, x.token_stride);
  }

  void lay_out_log_sums(frontend::graph::Tensor_attributes& tensor) const {
    const int64_t heads = shape_.q.heads, tokens = shape_.tokens;
    const int64_t head_stride = shape_.packed_tokens > 0 ? shape_.packed_tokens : tokens;
    tensor.set_uid(kLogSums)
        .set_data_type(frontend::DataType_t::FLOAT)
        .set_dim({shape_.sequences, heads, tokens, 1})
        .set_stride({heads * head_stride, head_stride, 1, 1});
    pack(tensor, 1);
  }

  void lay_out_result(const Tensor& tensor, TensorId id, const HeadsLayout& x) const {
    lay_out(*tensor, id, x);
    tensor->set_output(true);
  }

  Tensor input(TensorId id, const HeadsLayout& x) {
    frontend::graph::Tensor_attributes tensor;
    lay_out(tensor, id, x);
    return graph_.tensor(tensor);
  }

  Graph& graph_;
  const AttentionShape& shape_;
  std::vector<int64_t> strides_;
  Tensor lengths_;              // null where nothing is packed
  std::vector<Tensor> begins_;  // of strides_
};

}  // namespace

std::vector<int64_t> token_strides(const AttentionShape& shape) {
  std::set<int64_t> strides = {1};
  for (const HeadsLayout& x : {shape.q, shape.k, shape.v, shape.mixed}) {
    strides.insert(x.token_stride);
  }
  if (shape.backward) {
    for (const HeadsLayout& x : {shape.d_mixed, shape.d_q, shape.d_k, shape.d_v}) {
      strides.insert(x.token_stride);
    }
  }
  return {strides.begin(), strides.end()};
}

AttentionGraph::AttentionGraph(cudnnHandle_t handle, const AttentionShape& shape, int most)
    : graph_(std::make_shared<Graph>()), sequences_(shape.sequences) {
  if (shape.packed_tokens > 0) num_strides_ = static_cast<int64_t>(token_strides(shape).size());
  graph_->set_io_data_type(frontend::DataType_t::BFLOAT16)
      .set_intermediate_data_type(frontend::DataType_t::FLOAT)
      .set_compute_data_type(frontend::DataType_t::FLOAT);
  GraphMaker maker(*graph_, shape);
  if (shape.backward) {
    maker.add_backward();
  } else {
    maker.add_forward();
  }
  check(graph_->validate(), "graph");
  check(graph_->build_operation_graph(handle), "operations");
  check(graph_->create_execution_plans({frontend::HeurMode_t::A, frontend::HeurMode_t::B}),
        "choice");
  std::string refusal;
  std::set<std::string> names;
  for (int64_t i = 0; i < graph_->get_execution_plan_count() && size() < most; ++i) {
    std::string name;
    check(graph_->get_plan_name_at_index(i, name), "choice");
    if (!names.insert(name).second) continue;  // both of the heuristics chose it
    frontend::error_t status = graph_->build_plan_at_index(i);
    if (status.is_good()) {
      plans_.push_back(i);
    } else {
      refusal = status.get_message();
    }
  }
  MT_CHECK(!plans_.empty(), "cuDNN has no plan for this attention: ", refusal);
}

int64_t AttentionGraph::workspace_bytes(int plan) const {
  int64_t bytes = 0;
  check(graph_->get_workspace_size_plan_at_index(plans_[plan], bytes), "workspace");
  return bytes;
}

void AttentionGraph::run(int plan, cudnnHandle_t handle, const AttentionMemory& memory,
                         void* workspace) const {
  std::unordered_map<int64_t, void*> tensors = {{kQ, const_cast<void*>(memory.q)},
                                                {kK, const_cast<void*>(memory.k)},
                                                {kV, const_cast<void*>(memory.v)},
                                                {kMixed, memory.mixed},
                                                {kLogSums, memory.log_sums}};
  if (memory.d_mixed != nullptr) {
    tensors[kDMixed] = const_cast<void*>(memory.d_mixed);
    tensors[kDQ] = memory.d_q;
    tensors[kDK] = memory.d_k;
    tensors[kDV] = memory.d_v;
  }
  for (int64_t i = 0; i < num_strides_; ++i) {
    tensors[kBegins + i] = const_cast<int64_t*>(memory.begins + i * (sequences_ + 1));
  }
  if (num_strides_ > 0) tensors[kLengths] = const_cast<int32_t*>(memory.lengths);
  check(graph_->execute_plan_at_index(handle, tensors, workspace, plans_[plan]), "run");
}

}  // namespace moetron
