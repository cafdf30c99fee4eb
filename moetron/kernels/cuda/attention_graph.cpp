#include "moetron/kernels/cuda/attention_graph.h"

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

enum TensorId : int64_t { kQ = 1, kK, kV, kMixed, kLogSums, kDMixed, kDQ, kDK, kDV };

void check(frontend::error_t status, const char* what) {
  MT_CHECK(status.is_good(), "cuDNN's ", what, " of attention: ", status.get_message());
}

void lay_out(frontend::graph::Tensor_attributes& tensor, TensorId id, const AttentionShape& shape,
             const HeadsLayout& x) {
  tensor.set_uid(id)
      .set_dim({shape.sequences, x.heads, shape.tokens, x.width})
      .set_stride({x.sequence_stride, x.head_stride, x.token_stride, 1});
}

void lay_out_log_sums(frontend::graph::Tensor_attributes& tensor, const AttentionShape& shape) {
  const int64_t heads = shape.q.heads, tokens = shape.tokens;
  tensor.set_uid(kLogSums)
      .set_data_type(frontend::DataType_t::FLOAT)
      .set_dim({shape.sequences, heads, tokens, 1})
      .set_stride({heads * tokens, tokens, 1, 1});
}

void lay_out_result(const Tensor& tensor, TensorId id, const AttentionShape& shape,
                    const HeadsLayout& x) {
  lay_out(*tensor, id, shape, x);
  tensor->set_output(true);
}

Tensor input(Graph& graph, TensorId id, const AttentionShape& shape, const HeadsLayout& x) {
  frontend::graph::Tensor_attributes tensor;
  lay_out(tensor, id, shape, x);
  return graph.tensor(tensor);
}

void add_forward(Graph& graph, const AttentionShape& shape) {
  const auto [mixed, log_sums] =
      graph.sdpa(input(graph, kQ, shape, shape.q), input(graph, kK, shape, shape.k),
                 input(graph, kV, shape, shape.v),
                 frontend::graph::SDPA_attributes()
                     .set_name("attention")
                     .set_generate_stats(true)
                     .set_causal_mask(true)
                     .set_attn_scale(static_cast<float>(shape.softmax_scale)));
  lay_out_result(mixed, kMixed, shape, shape.mixed);
  lay_out_log_sums(*log_sums, shape);
  log_sums->set_output(true);
}

void add_backward(Graph& graph, const AttentionShape& shape) {
  frontend::graph::Tensor_attributes log_sums;
  lay_out_log_sums(log_sums, shape);
  const auto [d_q, d_k, d_v] = graph.sdpa_backward(
      input(graph, kQ, shape, shape.q), input(graph, kK, shape, shape.k),
      input(graph, kV, shape, shape.v), input(graph, kMixed, shape, shape.mixed),
      input(graph, kDMixed, shape, shape.d_mixed), graph.tensor(log_sums),
      frontend::graph::SDPA_backward_attributes()
          .set_name("attention_backward")
          .set_causal_mask(true)
          .set_attn_scale(static_cast<float>(shape.softmax_scale))
          .set_deterministic_algorithm(shape.deterministic));
  lay_out_result(d_q, kDQ, shape, shape.d_q);
  lay_out_result(d_k, kDK, shape, shape.d_k);
  lay_out_result(d_v, kDV, shape, shape.d_v);
}

}  // namespace

AttentionGraph::AttentionGraph(cudnnHandle_t handle, const AttentionShape& shape, int most)
    : graph_(std::make_shared<Graph>()) {
  graph_->set_io_data_type(frontend::DataType_t::BFLOAT16)
      .set_intermediate_data_type(frontend::DataType_t::FLOAT)
      .set_compute_data_type(frontend::DataType_t::FLOAT);
  if (shape.backward) {
    add_backward(*graph_, shape);
  } else {
    add_forward(*graph_, shape);
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
  check(graph_->execute_plan_at_index(handle, tensors, workspace, plans_[plan]), "run");
}

}  // namespace moetron
