#include "moetron/comm/gather_texts.h"

#include <algorithm>
#include <cstring>
#include <span>

#include <ATen/ATen.h>

#include "moetron/comm/communicator.h"

namespace moetron {

std::vector<std::string> gather_texts(Communicator& world, const std::string& text) {
  const int64_t size = world.size();
  const at::Tensor mine = at::tensor({static_cast<int64_t>(text.size())}, at::kLong);
  const at::Tensor lengths = at::empty({size}, at::kLong);
  world.all_gather(lengths, mine).wait();
  const std::span<const int64_t> counts(lengths.const_data_ptr<int64_t>(),
                                        static_cast<size_t>(size));
  // At least one byte, so that every rank does the same whatever it knows of the others.
  const int64_t longest = std::max<int64_t>(1, *std::max_element(counts.begin(), counts.end()));
  std::vector<std::string> texts(static_cast<size_t>(size));
  const at::Tensor padded = at::zeros({longest}, at::kByte);
  std::memcpy(padded.mutable_data_ptr(), text.data(), text.size());
  const at::Tensor all = at::empty({size * longest}, at::kByte);
  world.all_gather(all, padded).wait();
  const auto* data = static_cast<const char*>(all.const_data_ptr());
  for (size_t rank = 0; rank < texts.size(); ++rank, data += longest) {
    texts[rank].assign(data, static_cast<size_t>(counts[rank]));
  }
  return texts;
}

}  // namespace moetron
