#include "moetron/checkpoint/layouts_fixture.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/checkpoint/checkpoint_fixture.h"

namespace moetron {
namespace {

struct Box {
  std::vector<int64_t> begin, sizes;
};

Box whole_box(const at::Tensor& tensor) {
  return {std::vector<int64_t>(tensor.dim(), 0), tensor.sizes().vec()};
}

// Part `index` of `count` along `dim`; may be empty.
Box part_of(Box box, size_t dim, int64_t index, int64_t count) {
  const int64_t part = (box.sizes[dim] + count - 1) / count;
  const int64_t first = std::min(box.sizes[dim], index * part);
  box.begin[dim] += first;
  box.sizes[dim] = std::min(part, box.sizes[dim] - first);
  return box;
}

// Elements [first, last) of a matrix or vector: part of a row, whole rows, part of a row.
std::vector<Box> boxes_of_range(const at::Tensor& tensor, int64_t first, int64_t last) {
  const int64_t columns = tensor.dim() == 1 ? 1 : tensor.size(1);
  std::vector<Box> boxes;
  while (first < last) {
    const int64_t row = first / columns, column = first % columns;
    const bool is_partial = column > 0 || last - first < columns;
    const int64_t rows = is_partial ? 1 : (last - first) / columns;
    const int64_t width = is_partial ? std::min(columns - column, last - first) : columns;
    if (tensor.dim() == 1) {
      boxes.push_back({{row}, {rows}});
    } else {
      boxes.push_back({{row, column}, {rows, width}});
    }
    first += rows * width;
  }
  return boxes;
}

std::vector<Box> boxes_of(const std::string& name, const at::Tensor& tensor, Layout layout,
                          int rank, int size) {
  const Box whole = whole_box(tensor);
  if (tensor.dim() == 0) return {whole};
  const auto last_dim = static_cast<size_t>(tensor.dim() - 1);
  switch (layout) {
    case Layout::kReplicas:
      return {whole};
    case Layout::kRows:
      return {part_of(whole, 0, rank, size)};
    case Layout::kColumns:
      return {part_of(whole, last_dim, rank, size)};
    case Layout::kGrid:
      if (size == 1 || last_dim == 0) return {part_of(whole, 0, rank, size)};
      return {part_of(part_of(whole, last_dim, rank % 2, 2), 0, rank / 2, size / 2)};
    case Layout::kExperts: {
      if (tensor.dim() == 3) return {part_of(whole, 0, rank, size)};
      const size_t found = name.find(".experts.");
      if (found == std::string::npos) return {whole};
      if (std::stoi(name.substr(found + 9)) % size == rank) return {whole};
      return {};
    }
    case Layout::kStretch: {
      if (tensor.dim() == 3 && size % 2 == 1) return {part_of(whole, 0, rank, size)};
      if (tensor.dim() == 3)
        return {part_of(part_of(whole, 0, rank / 2, size / 2), 1, rank % 2, 2)};
      const int64_t part = (tensor.numel() + size - 1) / size;
      return boxes_of_range(tensor, std::min(tensor.numel(), rank * part),
                            std::min(tensor.numel(), (rank + 1) * part));
    }
  }
  throw InternalError("no such layout");
}

at::Tensor region(const at::Tensor& tensor, const Box& box) {
  at::Tensor view = tensor;
  for (size_t dim = 0; dim < box.begin.size(); ++dim) {
    view = view.narrow(static_cast<int64_t>(dim), box.begin[dim], box.sizes[dim]);
  }
  return view;
}

// Memory for a box: dense, transposed, or the middle of something larger.
at::Tensor memory_for(const Box& box, at::ScalarType type, int kind) {
  if (box.sizes.size() < 2 || kind % 3 == 0) return at::zeros(box.sizes, type);
  std::vector<int64_t> sizes = box.sizes;
  if (kind % 3 == 1) {
    std::swap(sizes.front(), sizes.back());
    return at::zeros(sizes, type).transpose(0, -1);
  }
  for (int64_t& dim : sizes) dim += 3;
  return region(at::zeros(sizes, type), {std::vector<int64_t>(sizes.size(), 2), box.sizes});
}

}  // namespace

std::vector<NamedSlice> cut(const WholeTensors& tensors, Layout layout, int rank, int size,
                            Values values) {
  std::vector<NamedSlice> slices;
  int kind = rank;
  for (const auto& [name, tensor] : tensors) {
    for (const Box& box : boxes_of(name, tensor, layout, rank, size)) {
      const at::ScalarType type = tensor.scalar_type();
      const at::Tensor view = values == Values::kNone ? at::zeros({}, type).expand(box.sizes)
                                                      : memory_for(box, type, kind++);
      if (values == Values::kCopied) view.copy_(region(tensor, box));
      slices.push_back({name, tensor.sizes().vec(), box.begin, view});
    }
  }
  std::reverse(slices.begin(), slices.end());  // the order must not matter
  return slices;
}

bool holds(const std::vector<NamedSlice>& slices, const WholeTensors& tensors) {
  return std::all_of(slices.begin(), slices.end(), [&](const NamedSlice& slice) {
    return at::equal(slice.view,
                     region(tensors.at(slice.name), {slice.begin, slice.view.sizes().vec()}));
  });
}

WholeTensors layouts_weights() {
  WholeTensors tensors;
  int64_t first = 1;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, at::ScalarType type) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    tensors[name] = at::arange(first, first + count, at::kFloat).sin().to(type).view(shape);
    first += count;
  };
  add("model.embed_tokens.weight", {33, 8}, at::kBFloat16);
  add("model.layers.2.self_attn.q_proj.weight", {12, 7}, at::kBFloat16);
  add("model.layers.10.self_attn.o_proj.weight", {5, 16}, at::kBFloat16);
  for (int expert = 0; expert < 11; ++expert) {
    const std::string prefix = concat("model.layers.2.mlp.experts.", expert);
    add(prefix + ".up_proj.weight", {6, 10}, at::kBFloat16);
    add(prefix + ".down_proj.weight", {10, 6}, at::kBFloat16);
  }
  add("model.layers.2.mlp.stacked", {9, 6, 5}, at::kFloat);
  add("model.layers.2.mlp.gate.e_score_correction_bias", {11}, at::kFloat);
  add("model.norm.weight", {9}, at::kBFloat16);
  add("scale", {}, at::kFloat);
  return tensors;
}

WholeTensors layouts_states() {
  WholeTensors states;
  for (const auto& [name, tensor] : layouts_weights()) {
    states["exp_avg." + name] = tensor.to(at::kFloat).cos();
    if (tensor.scalar_type() == at::kBFloat16) {
      states["master." + name] = tensor.to(at::kFloat) * 1.001;
    }
  }
  return states;
}

CheckpointContent layouts_content(Layout weights, Layout states, int rank, int size) {
  CheckpointContent content;
  content.config = rank == 0 ? "{\"model_type\": \"qwen3\"}\n" : "not rank 0's";
  content.trainer = rank == 0 ? trainer_text(1) : "not rank 0's";
  content.weights = cut(layouts_weights(), weights, rank, size);
  content.states = cut(layouts_states(), states, rank, size);
  return content;
}

std::map<std::string, std::string> read_tree(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    files[entry.path().lexically_relative(folder).string()] = read_file(entry.path());
  }
  return files;
}

}  // namespace moetron
