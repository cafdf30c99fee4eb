// A weight that several layers use (an embedding's table that the head reads, too), wherever in the
// pipeline they are. The first use in the order of the model owns it: that rank stores and updates
// the weight. Uses on other ranks are copies. Every use has a gradient of its own, and the owner
// adds them to its own in the order of the model, so that no layout and no schedule changes a bit.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "moetron/arch/stage_layers.h"
#include "moetron/comm/communicator.h"
#include "moetron/models/model.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

class Mesh;

class TiedWeight {
 public:
  // `stages`: all of the pipeline. Collective over the ranks of the mesh's pipelines that have
  // uses. The model outlives the object.
  TiedWeight(Tie tie, Mesh& mesh, const Placement& placement,
             const std::vector<StageLayers>& stages);

  // Before a pass: the owner's values go to the ranks that have copies. Collective over the ranks
  // that have uses.
  void share_values();
  // The owner, if it is here, else null.
  Parameter* owner() { return is_owner_here() ? tie_.uses.front().parameter : nullptr; }

  // Before a step: the gradients of all uses but the owner count as zero.
  void clear_grads();
  // `done`: parameters of a layer whose gradients are complete. Takes this weight's uses out, and
  // puts the owner in once the gradients of all uses, of other ranks too, are added to it. A rank
  // that has only copies sends theirs. Every use is done once a step.
  void fold(std::vector<Parameter*>& done);

 private:
  bool is_owner_here() const;
  void agree_on_training();
  // Between the owner's rank (0 of the two) and one that has copies (1).
  Communicator& link_to(int rank) { return *links_.at(rank); }
  void send_grads();
  void add_grads();

  Tie tie_;
  int rank_;                                            // of the pipeline
  std::vector<int> rank_of_use_;                        // of all uses, in the order of the model
  std::map<int, std::unique_ptr<Communicator>> links_;  // of this rank, by the other one
  size_t num_done_ = 0;                                 // uses here, in this step
  bool is_trained_ = true;
};

}  // namespace moetron
