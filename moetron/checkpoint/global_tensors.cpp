#include "moetron/checkpoint/global_tensors.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/checkpoint/slice_runs.h"
#include "moetron/checkpoint/tensor_file.h"

namespace moetron {
namespace {

// A slice without its memory.
struct Description {
  SafetensorsTensor tensor;
  std::vector<int64_t> begin, sizes;
};

int64_t product(std::span<const int64_t> sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

// Descriptions travel as plain bytes: numbers in this machine's order, texts after their length.
class Packer {
 public:
  void add(int64_t number) { text_.append(reinterpret_cast<const char*>(&number), sizeof number); }
  void add(const std::string& text) {
    add(static_cast<int64_t>(text.size()));
    text_ += text;
  }
  void add(std::span<const int64_t> numbers) {
    for (const int64_t number : numbers) add(number);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view text) : text_(text) {}

  bool at_end() const { return text_.empty(); }
  int64_t number() {
    int64_t value = 0;
    std::memcpy(&value, next(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() { return std::string(next(static_cast<size_t>(number()))); }
  std::vector<int64_t> numbers(int64_t count) {
    std::vector<int64_t> values(static_cast<size_t>(count));
    for (int64_t& value : values) value = number();
    return values;
  }

 private:
  std::string_view next(size_t count) {
    MT_CHECK(count <= text_.size(), "a description of slices is cut short");
    const std::string_view piece = text_.substr(0, count);
    text_.remove_prefix(count);
    return piece;
  }

  std::string_view text_;
};

Description next_description(Unpacker& unpacker) {
  Description slice;
  slice.tensor.name = unpacker.text();
  slice.tensor.dtype = static_cast<SafetensorsDtype>(unpacker.number());
  const int64_t num_dims = unpacker.number();
  slice.tensor.shape = unpacker.numbers(num_dims);
  slice.begin = unpacker.numbers(num_dims);
  slice.sizes = unpacker.numbers(num_dims);
  return slice;
}

bool is_same_box(const HeldBox& a, const HeldBox& b) {
  return a.begin == b.begin && a.sizes == b.sizes;
}

bool overlap(const HeldBox& a, const HeldBox& b) {
  for (size_t dim = 0; dim < a.begin.size(); ++dim) {
    const bool apart =
        a.begin[dim] + a.sizes[dim] <= b.begin[dim] || b.begin[dim] + b.sizes[dim] <= a.begin[dim];
    if (apart) return false;
  }
  return true;
}

// Sorts the boxes, and makes one of those that several ranks hold.
void join_replicas(GlobalTensor& tensor) {
  std::vector<HeldBox>& boxes = tensor.boxes;
  std::stable_sort(boxes.begin(), boxes.end(), [](const HeldBox& a, const HeldBox& b) {
    return std::tie(a.begin, a.sizes) < std::tie(b.begin, b.sizes);
  });
  std::vector<HeldBox> joined;
  for (HeldBox& box : boxes) {
    if (joined.empty() || !is_same_box(joined.back(), box)) {
      joined.push_back(std::move(box));
      continue;
    }
    const Holder holder = box.holders.front();
    MT_CHECK(joined.back().holders.back().rank != holder.rank, tensor.description.name, ": rank ",
             holder.rank, " holds the same slice twice");
    joined.back().holders.push_back(holder);
  }
  boxes = std::move(joined);
}

// Boxes inside a tensor that are disjoint and have as many elements as it cover it exactly.
void check_cover(const GlobalTensor& tensor) {
  const std::string& name = tensor.description.name;
  const int64_t wanted = product(tensor.description.shape);
  int64_t held = 0;
  for (const HeldBox& box : tensor.boxes) held += product(box.sizes);
  MT_CHECK(held == wanted, name, ": the slices of all ranks hold ", held, " of ", wanted,
           " elements");
  if (tensor.description.shape.empty()) return;
  for (size_t i = 0; i < tensor.boxes.size(); ++i) {
    const HeldBox& box = tensor.boxes[i];
    // Sorted by `begin`: what comes later and begins behind the end of this one's rows is apart.
    for (size_t j = i + 1; j < tensor.boxes.size(); ++j) {
      const HeldBox& other = tensor.boxes[j];
      if (other.begin[0] >= box.begin[0] + box.sizes[0]) break;
      MT_CHECK(!overlap(box, other), name, ": the slices of all ranks hold ", held, " of ", wanted,
               " elements, but those of ranks ", box.holders.front().rank, " and ",
               other.holders.front().rank, " overlap");
    }
  }
}

struct NameOrder {
  bool operator()(const std::string& a, const std::string& b) const { return comes_before(a, b); }
};

using TensorsByName = std::map<std::string, GlobalTensor, NameOrder>;

void add_slice(int rank, int64_t place, Description slice, TensorsByName& tensors) {
  const auto [found, is_new] = tensors.try_emplace(slice.tensor.name);
  GlobalTensor& tensor = found->second;
  const bool is_empty = product(slice.sizes) == 0;
  if (is_new) tensor.description = slice.tensor;
  MT_CHECK(tensor.description.shape == slice.tensor.shape &&
               tensor.description.dtype == slice.tensor.dtype,
           slice.tensor.name, ": two slices disagree about shape or type");
  if (is_empty) return;
  tensor.boxes.push_back({std::move(slice.begin), std::move(slice.sizes), {{rank, place}}});
}

}  // namespace

std::string describe_slices(const std::vector<NamedSlice>& slices) {
  Packer packer;
  for (const NamedSlice& slice : slices) {
    const SliceRuns checked(slice);  // that it lies inside its tensor
    packer.add(slice.name);
    packer.add(static_cast<int64_t>(stored_dtype(slice.view.scalar_type())));
    packer.add(static_cast<int64_t>(slice.global_shape.size()));
    packer.add(slice.global_shape);
    packer.add(slice.begin);
    packer.add(std::span<const int64_t>(slice.view.sizes().data(), slice.view.sizes().size()));
  }
  return packer.take();
}

std::vector<GlobalTensor> find_global_tensors(const std::vector<std::string>& descriptions) {
  TensorsByName by_name;
  for (size_t rank = 0; rank < descriptions.size(); ++rank) {
    Unpacker unpacker(descriptions[rank]);
    for (int64_t place = 0; !unpacker.at_end(); ++place) {
      add_slice(static_cast<int>(rank), place, next_description(unpacker), by_name);
    }
  }
  std::vector<GlobalTensor> tensors;
  for (auto& [name, tensor] : by_name) {
    join_replicas(tensor);
    check_cover(tensor);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

bool comes_before(std::string_view a, std::string_view b) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  // The digits at the front of `text`, without leading zeros; `text` moves on behind them.
  const auto take_number = [&](std::string_view& text) {
    const auto end = std::find_if_not(text.begin(), text.end(), is_digit);
    std::string_view digits = text.substr(0, static_cast<size_t>(end - text.begin()));
    text.remove_prefix(digits.size());
    digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size()));
    return digits;
  };
  std::string_view rest_a = a, rest_b = b;
  while (!rest_a.empty() && !rest_b.empty()) {
    if (is_digit(rest_a[0]) && is_digit(rest_b[0])) {
      const std::string_view number_a = take_number(rest_a), number_b = take_number(rest_b);
      if (number_a.size() != number_b.size()) return number_a.size() < number_b.size();
      if (number_a != number_b) return number_a < number_b;
    } else if (rest_a[0] != rest_b[0]) {
      return rest_a[0] < rest_b[0];
    } else {
      rest_a.remove_prefix(1);
      rest_b.remove_prefix(1);
    }
  }
  if (rest_a.empty() != rest_b.empty()) return rest_a.empty();
  return a < b;  // the same numbers, written with and without zeros in front
}

}  // namespace moetron
