#include "moetron/train/tied_weight.h"

#include <algorithm>
#include <sstream>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/parallel/mesh.h"
#include "moetron/pipeline/stage_links.h"

namespace moetron {

TiedWeight::TiedWeight(Tie tie, Mesh& mesh) : tie_(std::move(tie)), rank_(mesh.pipeline().rank()) {
  std::string mine;
  for (const TiedUse& use : tie_.uses) mine += concat(use.place, " ");
  const std::vector<std::string> texts = gather_texts(mesh.pipeline(), mine);
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    std::istringstream places(texts[rank]);
    for (int64_t place = 0; places >> place;) places_.push_back({place, static_cast<int>(rank)});
  }
  MT_CHECK(!places_.empty(), "a tied weight that no layer uses");
  std::sort(places_.begin(), places_.end(),
            [](const Place& a, const Place& b) { return a.place < b.place; });
  const int owner = places_.front().rank;
  for (size_t i = 0; i < texts.size(); ++i) {  // in one order on every rank
    const int copy = static_cast<int>(i);
    if (texts[i].empty() || copy == owner || (rank_ != owner && rank_ != copy)) continue;
    auto link = mesh.pipeline().subgroup({owner, copy}, "tied weight");
    connect(*link, /*from=*/1, tie_.uses.front().parameter->value().device());
    links_[rank_ == owner ? copy : owner] = std::move(link);
  }
}

bool TiedWeight::is_owner_here() const {
  return places_.front().rank == rank_;
}

void TiedWeight::share_values() {
  const at::NoGradGuard no_grad;
  for (const auto& [other, link] : links_) {
    const at::Tensor& value = tie_.uses.front().parameter->value();
    (is_owner_here() ? link->send(value, /*peer=*/1) : link->recv(value, /*peer=*/0)).wait();
    if (!is_owner_here()) tie_.uses.front().parameter->value_changed();
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
  if (!is_complete || !tie_.uses.front().parameter->needs_grad()) return;
  if (is_owner_here()) {
    add_grads();
    done.push_back(owner());
  } else {
    send_grads();
  }
}

void TiedWeight::send_grads() {
  Communicator& link = link_to(places_.front().rank);
  for (const TiedUse& use : tie_.uses) link.send(use.parameter->grad(), /*peer=*/0);
}

void TiedWeight::add_grads() {
  at::Tensor& sum = owner()->grad();
  auto here = tie_.uses.begin() + 1;
  for (auto place = places_.begin() + 1; place != places_.end(); ++place) {
    if (place->rank == rank_) {
      (here++)->parameter->fold_tied_grad();
      continue;
    }
    const at::Tensor received = at::empty_like(sum);
    link_to(place->rank).recv(received, /*peer=*/1).wait();
    sum.add_(received);
  }
}

}  // namespace moetron
