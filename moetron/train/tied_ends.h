// A table that embedding and head share, where they are on different ranks of the pipeline: the
// embedding's rank owns, stores and updates it, the head's has a copy.
#pragma once

#include <memory>

#include "moetron/autograd/parameter.h"
#include "moetron/comm/communicator.h"

namespace moetron {

class Mesh;
class Model;

class TiedEnds {
 public:
  // Collective over the pipelines of the mesh. The model outlives the object.
  TiedEnds(Model& model, Mesh& mesh);

  bool is_owner() const { return table_ != nullptr && is_owner_; }
  Parameter* table() { return table_; }  // the owner's, or the copy; null where there is none

  // Before a pass: sends the owner's values to the copy. Of training also clears the copy's
  // gradient.
  void share_values();
  void clear_grad();
  // Behind the last backward of each: the copy's gradient is added to the owner's, as that of a
  // second use on one rank would be.
  void send_grad();
  void add_grad();

 private:
  Parameter* table_ = nullptr;
  bool is_owner_ = false;
  std::unique_ptr<Communicator> ends_;  // the owner, then the copy
};

}  // namespace moetron
