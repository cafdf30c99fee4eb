#include "moetron/checkpoint/checkpoint_fixture.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/checkpoint/save_snapshot.h"
#include "moetron/checkpoint/trainer_state.h"
#include "moetron/checkpoint/write_checkpoint.h"

namespace moetron {
namespace {

at::Tensor named(const std::vector<NamedSlice>& slices, const std::string& name) {
  for (const NamedSlice& slice : slices) {
    if (slice.name == name) return slice.view;
  }
  throw InternalError("the tiny model has no tensor " + name);
}

bool equal(const std::vector<NamedSlice>& a, const std::vector<NamedSlice>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].name != b[i].name || !at::equal(a[i].view, b[i].view)) return false;
  }
  return true;
}

}  // namespace

std::string trainer_text(int64_t step) {
  return write_trainer_state({.step = step}).dump() + "\n";
}

std::filesystem::path save_checkpoint(const std::filesystem::path& save, int64_t step,
                                      const CheckpointContent& content, Communicator* world,
                                      const SaveSettings& settings) {
  const SavePlan plan = plan_save(content, world, settings);
  CheckpointContent complete = content;
  if (complete.trainer.empty()) complete.trainer = trainer_text(step);
  SaveSnapshot snapshot;
  snapshot.borrow(plan, std::move(complete));
  return write_checkpoint(save, step, plan, snapshot, world);
}

TinyModel::TinyModel(uint64_t seed, at::ScalarType dtype) {
  const auto add = [&](std::unique_ptr<Parameter> parameter) {
    parameter->initialize(seed, 1);
    if (parameter->settings().init == Init::kOnes) parameter->value().mul_(double(seed));
    const at::TensorOptions fp32 = at::TensorOptions().dtype(at::kFloat);
    const at::Tensor shape = parameter->value();
    Entry entry{std::move(parameter),
                at::full(shape.sizes(), 0.5 + double(seed), fp32),
                at::full(shape.sizes(), 0.25 / double(seed), fp32),
                {}};
    if (dtype != at::kFloat) entry.master = shape.to(at::kFloat);
    entries_.push_back(std::move(entry));
  };
  const int64_t hidden = 8;
  add(std::make_unique<Parameter>("model.embed_tokens.weight", std::vector<int64_t>{100, hidden},
                                  dtype, ParameterSettings{}));
  const std::string layer = "model.layers.0.mlp.";
  add(std::make_unique<Parameter>(
      "gate_up", std::vector<int64_t>{128, hidden}, dtype,
      std::vector{piece_of_rows(layer + "gate_proj.weight", {64, hidden}, 0, hidden),
                  piece_of_rows(layer + "up_proj.weight", {64, hidden}, 64, hidden)},
      ParameterSettings{}));
  add(std::make_unique<Parameter>("model.norm.weight", std::vector<int64_t>{hidden}, dtype,
                                  ParameterSettings{.init = Init::kOnes}));
}

std::vector<NamedSlice> TinyModel::weights() const {
  std::vector<NamedSlice> all;
  for (const Entry& entry : entries_) {
    for (NamedSlice& slice : entry.parameter->slices(entry.parameter->value())) {
      all.push_back(std::move(slice));
    }
  }
  return all;
}

std::vector<NamedSlice> TinyModel::states() const {
  std::vector<NamedSlice> all;
  const auto add = [&](const Entry& entry, const at::Tensor& tensor, const char* prefix) {
    if (!tensor.defined()) return;
    for (NamedSlice& slice : entry.parameter->slices(tensor, prefix)) all.push_back(slice);
  };
  for (const Entry& entry : entries_) {
    add(entry, entry.exp_avg, "exp_avg.");
    add(entry, entry.exp_avg_sq, "exp_avg_sq.");
    add(entry, entry.master, "master.");
  }
  return all;
}

CheckpointContent TinyModel::content() const {
  CheckpointContent content;
  content.config = "{\"model_type\": \"qwen3\", \"num_hidden_layers\": 1}\n";
  content.weights = weights();
  content.states = states();
  return content;
}

void TinyModel::train(double amount) {
  for (Entry& entry : entries_) {
    MT_CHECK(entry.master.defined(), "train() is for models with masters");
    entry.master.add_(at::randn_like(entry.master), amount);
    entry.parameter->value().copy_(entry.master);
    entry.exp_avg.normal_();
  }
}

at::Tensor TinyModel::weight(const std::string& name) const {
  return named(weights(), name);
}

at::Tensor TinyModel::state(const std::string& name) const {
  return named(states(), name);
}

bool TinyModel::equals(const TinyModel& other) const {
  return equal(weights(), other.weights()) && equal(states(), other.states());
}

}  // namespace moetron
