#include "moetron/train/tied_ends.h"

#include <ATen/ATen.h>

#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"
#include "moetron/pipeline/stage_links.h"

namespace moetron {

TiedEnds::TiedEnds(Model& model, Mesh& mesh) : table_(model.shared_table()) {
  if (table_ == nullptr) return;
  // Ends on one rank share nothing; on two, they are the first and the last of the pipeline.
  is_owner_ = mesh.pipeline().rank() == 0;
  ends_ = mesh.pipeline().subgroup({0, mesh.pipeline().size() - 1}, "tied ends");
  connect(*ends_, /*from=*/1, table_->value().device());
}

void TiedEnds::share_values() {
  if (table_ == nullptr) return;
  const at::NoGradGuard no_grad;
  ends_->broadcast(table_->value(), /*root=*/0).wait();
}

void TiedEnds::clear_grad() {
  if (table_ != nullptr && !is_owner_) table_->clear_grad();
}

void TiedEnds::send_grad() {
  ends_->send(table_->grad(), /*peer=*/0);
}

void TiedEnds::add_grad() {
  const at::Tensor received = at::empty_like(table_->grad());
  ends_->recv(received, /*peer=*/1).wait();
  table_->grad().add_(received);
}

}  // namespace moetron
