// TensorBoard event files with scalars and texts. Format: TFRecord frames (length, masked CRC-32C
// of the length, data, masked CRC-32C of the data) that hold protocol buffers of type
// tensorflow.Event.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "moetron/metrics/step_record.h"

namespace moetron {

// CRC-32C (Castagnoli), as in RFC 3720.
uint32_t crc32c(std::string_view bytes);
// As it is stored beside the data that it covers, so that a CRC of it all stays strong.
uint32_t masked_crc(std::string_view bytes);

class TensorBoardWriter {
 public:
  // Opens a new event file in the folder, which it makes if need be. `last_step` is the last that
  // is done: of what earlier files hold behind it, for a run that was killed repeats those steps,
  // TensorBoard shows nothing more. A fresh run passes 0. Throws ConfigError.
  TensorBoardWriter(const std::filesystem::path& folder, int64_t last_step);

  // TensorBoard keeps scalars as fp32.
  void scalar(const std::string& tag, double value, int64_t step);
  // Markdown, on TensorBoard's page of texts.
  void text(const std::string& tag, std::string_view markdown, int64_t step);
  // All numbers of a step.
  void write(const StepRecord& record);

  const std::filesystem::path& path() const { return path_; }

 private:
  void write_event(const std::string& event);
  void write_summary(std::string_view value, int64_t step);

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace moetron
