// For tests and their tools: whole safetensors files without a checkpoint around them. What a run
// writes, its ranks write in blocks (checkpoint/write_checkpoint.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

// Writes a file front to back. It appears under its name at commit(), whole or not at all.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsTensor> tensors,
                    const SafetensorsMetadata& metadata = {{"format", "pt"}})
      : layout_(layout_safetensors(std::move(tensors), metadata)), file_(path) {
    file_.write(layout_.header);
    skip_empty_tensors();
  }

  // The tensors in the order in which their bytes must arrive.
  const std::vector<SafetensorsEntry>& tensors() const { return layout_.tensors; }

  // The next bytes of tensor `name`, which may come in pieces; a wrong order is an InternalError.
  void write(std::string_view name, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    MT_CHECK(next_ < layout_.tensors.size(), "bytes of ", name, " after the last tensor");
    const SafetensorsEntry& tensor = layout_.tensors[next_];
    MT_CHECK(tensor.name == name, "bytes of ", name, " where ", tensor.name, " is due");
    MT_CHECK(bytes.size() <= tensor.bytes - written_, name, " has ", tensor.bytes, " bytes, not ",
             written_ + bytes.size());
    file_.write(bytes);
    written_ += bytes.size();
    skip_empty_tensors();
  }

  void commit() {
    MT_CHECK(next_ == layout_.tensors.size(), "tensor ", layout_.tensors[next_].name,
             " is incomplete: ", written_, " of ", layout_.tensors[next_].bytes, " bytes");
    file_.commit();
  }

 private:
  // Moves past the finished tensor and any that have no bytes.
  void skip_empty_tensors() {
    while (next_ < layout_.tensors.size() && written_ == layout_.tensors[next_].bytes) {
      ++next_;
      written_ = 0;
    }
  }

  SafetensorsLayout layout_;
  FileWriter file_;
  size_t next_ = 0;       // tensor being written
  uint64_t written_ = 0;  // of its bytes
};

}  // namespace moetron
