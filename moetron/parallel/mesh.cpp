#include "moetron/parallel/mesh.h"

#include <algorithm>
#include <vector>

#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"

namespace moetron {

Mesh::Mesh(Communicator& world, const ParallelSizes& sizes, int64_t copies, bool shares_in_experts)
    : world_(world), sizes_(sizes), copies_(copies) {
  MT_CHECK(world.size() == sizes.world, "a mesh of ", sizes.world, " ranks in a world of ",
           world.size());
  MT_CHECK(copies >= 1 && sizes.tp % copies == 0, copies, " copies of a head on ", sizes.tp,
           " tensor-parallel ranks");
  const int64_t rank = world.rank();
  const auto make = [&](const std::vector<int64_t>& members, const char* name) {
    return world.subgroup({members.begin(), members.end()}, name);
  };
  const auto along = [&](const std::vector<MeshAxis>& axes, const char* name) {
    return make(group_of(sizes, rank, axes), name);
  };
  tensor_ = along({MeshAxis::kTp}, "tp");
  data_ = along({MeshAxis::kDp}, "dp");
  const std::vector<int64_t> stage = group_of(sizes, rank, {MeshAxis::kTp, MeshAxis::kDp});
  stage_ = make(stage, "dp x tp");
  std::vector<int64_t> sharers;  // of this rank's key-value heads
  const auto head_of = [&](int64_t member) {
    return moetron::coordinate(sizes, member, MeshAxis::kTp) / copies;
  };
  std::copy_if(stage.begin(), stage.end(), std::back_inserter(sharers),
               [&](int64_t member) { return head_of(member) == head_of(rank); });
  head_copies_ = make(sharers, "dp x head copies");
  pipeline_ = along({MeshAxis::kPp}, "pp");
  expert_data_ = along({MeshAxis::kEdp}, "edp");
  expert_ = along({MeshAxis::kTpe, MeshAxis::kEp}, "ep x tpe");
  if (shares_in_experts && sizes.tpe > 1)
    expert_copies_ = along({MeshAxis::kTpe, MeshAxis::kEdp}, "edp x tpe");
}

Mesh::~Mesh() = default;

int64_t Mesh::coordinate(MeshAxis axis) const {
  return moetron::coordinate(sizes_, world_.rank(), axis);
}

Communicator& Mesh::replicas(const ReplicaRule& rule) {
  const int64_t copies = rule.tensor_copies;
  if (rule.data == ReplicaRule::Data::kEdp) {
    if (copies == 1 || (copies == 0 && sizes_.tpe == 1)) return *expert_data_;
    MT_CHECK(copies == 0 && expert_copies_ != nullptr, "routed experts with ", copies,
             " tensor-parallel copies");
    return *expert_copies_;
  }
  if (copies == 1) return *data_;
  if (copies == 0 || copies == sizes_.tp) return *stage_;
  MT_CHECK(copies == copies_, "a mesh for ", copies_, " copies of a head is asked for ", copies);
  return *head_copies_;
}

int64_t head_copies(const ParallelSizes& sizes, const ModelConfig& config) {
  if (config.mla) return 1;
  const DivisionSettings heads{.num_key_value_heads = config.num_key_value_heads};
  return tensor_shard(tensors::kKey.shard, /*rank=*/0, sizes.tp, heads).copies;
}

}  // namespace moetron
