// Inputs that several tests of this folder share.
#pragma once

#include <filesystem>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/metrics/step_record.h"

namespace moetron {

class MetricsFolderTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("moetron_metrics_" + std::to_string(::getpid()));
};

inline StepRecord sample_record(int64_t step) {
  StepRecord record;
  record.step = step;
  record.loss = 10.0 / 3.0;
  record.aux_loss = 0.1;
  record.grad_norm = 1.0 / 7.0;
  record.lr = 3e-4;
  record.tokens_per_second = 12345.678;
  record.tflops_per_second = 350.25;
  record.mfu = 0.354;
  record.memory_bytes = int64_t{70} << 30;
  record.seconds = 0.75;
  record.consumed_samples = step * 1024;
  return record;
}

}  // namespace moetron
