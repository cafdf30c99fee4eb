#include "moetron/models/tied_weight.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/parallel/mesh.h"
#include "moetron/pipeline/stage_links.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {

TiedWeight::TiedWeight(Tie tie, Mesh& mesh, const Placement& placement,
                       const std::vector<StageLayers>& stages)
    : tie_(std::move(tie)), rank_(mesh.pipeline().rank()) {
  for (const int64_t place : tie_.places) {
    rank_of_use_.push_back(placement.rank(stage_of(stages, place)));
  }
  MT_CHECK(std::count(rank_of_use_.begin(), rank_of_use_.end(), rank_) ==
               static_cast<std::ptrdiff_t>(tie_.uses.size()),
           "a tied weight has ", tie_.uses.size(), " uses on pipeline rank ", rank_);
  if (tie_.uses.empty()) return;
  const int owner = rank_of_use_.front();
  for (const int copy : std::set(rank_of_use_.begin(), rank_of_use_.end())) {
    if (copy == owner || (rank_ != owner && rank_ != copy)) continue;
    auto link = mesh.pipeline().subgroup({owner, copy}, "tied weight");
    connect(*link, /*from=*/1, tie_.uses.front().parameter->value().device());
    links_[rank_ == owner ? copy : owner] = std::move(link);
  }
  agree_on_training();
}

// The owner's role counts for its copies, too.
void TiedWeight::agree_on_training() {
  const at::Tensor& value = tie_.uses.front().parameter->value();
  is_trained_ = !is_owner_here() || tie_.uses.front().parameter->needs_grad();
  for (const auto& [other, link] : links_) {
    const at::Tensor is_frozen =
        at::full({1}, is_trained_ ? 0 : 1, value.options().dtype(at::kLong));
    (is_owner_here() ? link->send(is_frozen, /*peer=*/1) : link->recv(is_frozen, /*peer=*/0))
        .wait();
    if (!is_owner_here()) is_trained_ = is_frozen.item<int64_t>() == 0;
  }
}

bool TiedWeight::is_owner_here() const {
  return rank_of_use_.front() == rank_;
}

void TiedWeight::share_values() {
  const at::NoGradGuard no_grad;
  for (const auto& [other, link] : links_) {
    const at::Tensor& value = tie_.uses.front().parameter->value();
    (is_owner_here() ? link->send(value, /*peer=*/1) : link->recv(value, /*peer=*/0)).wait();
    if (is_owner_here()) continue;
    for (const TiedUse& use : tie_.uses) {
      if (!use.parameter->value().is_same(value)) use.parameter->value().copy_(value);
      use.parameter->value_changed();
    }
  }
}

void TiedWeight::clear_grads() {
  num_done_ = 0;
  for (const TiedUse& use : tie_.uses) {
    if (use.parameter != owner()) use.parameter->clear_grad();
  }
}

void TiedWeight::fold(std::vector<Parameter*>& done) {
  const auto is_use = [this](const Parameter* parameter) {
    return std::any_of(tie_.uses.begin(), tie_.uses.end(),
                       [&](const TiedUse& use) { return use.parameter == parameter; });
  };
  const size_t num_new = std::erase_if(done, is_use);
  num_done_ += num_new;
  const bool is_complete = num_new > 0 && num_done_ == tie_.uses.size();
  if (!is_complete || !is_trained_) return;
  if (is_owner_here()) {
    add_grads();
    done.push_back(owner());
  } else {
    send_grads();
  }
}

void TiedWeight::send_grads() {
  Communicator& link = link_to(rank_of_use_.front());
  for (const TiedUse& use : tie_.uses) link.send(use.parameter->grad(), /*peer=*/0);
}

void TiedWeight::add_grads() {
  at::Tensor& sum = owner()->grad();
  auto here = tie_.uses.begin() + 1;
  for (size_t use = 1; use < rank_of_use_.size(); ++use) {
    if (rank_of_use_[use] == rank_) {
      (here++)->parameter->fold_tied_grad();
      continue;
    }
    const at::Tensor received = at::empty_like(sum);
    link_to(rank_of_use_[use]).recv(received, /*peer=*/1).wait();
    sum.add_(received);
  }
}

}  // namespace moetron
