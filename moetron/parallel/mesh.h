// The rank mesh and its groups (DESIGN section 4; arch/mesh_layout.h has the arithmetic). World =
// PP x DP x TP for dense parameters and PP x EDP x EP x TPE for experts: the same ranks folded
// otherwise. All groups are made once, in one order on every rank, so that no later step makes any.
#pragma once

#include <memory>

#include "moetron/arch/mesh_layout.h"
#include "moetron/arch/model_config.h"
#include "moetron/autograd/parameter.h"
#include "moetron/comm/communicator.h"

namespace moetron {

class Mesh {
 public:
  // Collective over `world`, which must hold sizes.world ranks and outlive the mesh. `head_copies`
  // tensor-parallel ranks in a row hold the same key-value head (head_copies() below).
  // `shares_in_experts`: the shards of an expert hold something whole, each of them (a factor of a
  // low-rank update).
  Mesh(Communicator& world, const ParallelSizes& sizes, int64_t head_copies = 1,
       bool shares_in_experts = false);
  ~Mesh();

  const ParallelSizes& sizes() const { return sizes_; }
  int64_t coordinate(MeshAxis axis) const;  // of this rank

  Communicator& world() { return world_; }
  Communicator& tensor() { return *tensor_; }  // TP
  Communicator* tensor_group() { return sizes_.tp > 1 ? tensor_.get() : nullptr; }
  Communicator& data() { return *data_; }          // DP
  Communicator& stage() { return *stage_; }        // DP x TP: all ranks of a pipeline stage
  Communicator& pipeline() { return *pipeline_; }  // PP: the ranks that one micro-batch visits
  // EP x TPE, tpe fastest: among them a token finds every expert.
  Communicator& expert() { return *expert_; }

  // The ranks that hold copies of a parameter by this rule, and sum its gradient. The mesh was made
  // for its tensor_copies: 1, all, or `head_copies`; of routed experts 1, or all with
  // `shares_in_experts`.
  Communicator& replicas(const ReplicaRule& rule);
  // Whether this rank's copy is the one that counts where each parameter counts once.
  bool is_first_replica(const ReplicaRule& rule) { return replicas(rule).rank() == 0; }

 private:
  Communicator& world_;
  ParallelSizes sizes_;
  int64_t copies_;  // of a key-value head
  std::unique_ptr<Communicator> tensor_;
  std::unique_ptr<Communicator> data_;
  std::unique_ptr<Communicator> head_copies_;
  std::unique_ptr<Communicator> stage_;
  std::unique_ptr<Communicator> pipeline_;
  std::unique_ptr<Communicator> expert_data_;
  std::unique_ptr<Communicator> expert_copies_;  // null: expert_data_, or nobody needs it
  std::unique_ptr<Communicator> expert_;
};

// How many tensor-parallel ranks share a key-value head; 1 for latent attention.
int64_t head_copies(const ParallelSizes& sizes, const ModelConfig& config);

}  // namespace moetron
