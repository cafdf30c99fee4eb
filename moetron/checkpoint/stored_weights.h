// The tensors that a model's weights are read from, whatever the format of their files.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/checkpoint/stored_model.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

// A tensor's elements, row-major, as they are stored.
struct StoredBytes {
  std::span<const std::byte> bytes;
  std::vector<std::byte> memory = {};  // holds them, where no map of a file does
};

class StoredWeights {
 public:
  virtual ~StoredWeights() = default;
  virtual std::vector<std::string> names() const = 0;  // sorted
  // By its Hugging Face name; nullptr where there is none.
  virtual const SafetensorsTensor* find(std::string_view name) const = 0;
  // Of a tensor that is there: its bytes, which live as long as both this and the result do, and
  // the file or folder that complaints name.
  virtual StoredBytes read(std::string_view name) const = 0;
  virtual std::string place_of(std::string_view name) const = 0;
};

// Throws InputError, for --load, unless the folder holds a config.json or Megatron's files.
void check_holds_model(const std::filesystem::path& folder);

// Those of a PEFT adapter's folder, of a Hugging Face directory or, where `folder` has none, of
// Megatron's files of ranks (mp_rank_*) or of its sharded format; of the layers that are wanted.
// `stored` tells the model of Megatron's files, or config.json beside them. InputError where there
// are no weights and where they are damaged.
std::unique_ptr<StoredWeights> open_weights(const std::filesystem::path& folder,
                                            const StoredModel& stored = {});

}  // namespace moetron
