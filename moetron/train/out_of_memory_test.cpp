#include "moetron/train/out_of_memory.h"

#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// libtorch's words, and a real one where there is a GPU to fill.
TEST(OutOfMemory, IsToldInOneSentenceWithWhatHelps) {
  const auto expect_told = [](const c10::OutOfMemoryError& error) {
    const std::string told = describe_out_of_memory(error).value_or("");
    EXPECT_NE(told.find("CUDA out of memory. Tried to allocate "), std::string::npos) << told;
    EXPECT_NE(told.find(" is free. Less is needed with a smaller micro-batch-size"),
              std::string::npos)
        << told;
    EXPECT_EQ(told.find("PYTORCH"), std::string::npos) << told;
    EXPECT_EQ(told.find('\n'), std::string::npos) << told;
  };
  expect_told(c10::OutOfMemoryError(
      {__func__, __FILE__, __LINE__},
      "CUDA out of memory. Tried to allocate 1.75 GiB. GPU 0 has a total capacity of 139.80 GiB of "
      "which 1.20 GiB is free. Process 1 has 138.60 GiB memory in use. See PYTORCH_ALLOC_CONF\n"));
  if (!at::hasCUDA()) return;
  try {
    at::empty({int64_t{1} << 46}, at::TensorOptions(at::kCUDA).dtype(at::kByte));
    FAIL();
  } catch (const c10::OutOfMemoryError& error) {
    expect_told(error);
  }
}

// What an allocator of libtorch's and one of C++ say where no host has so much.
TEST(OutOfMemory, OfTheHostIsToldToo) {
  const auto told_of = [](const auto& allocate) {
    try {
      allocate();
    } catch (const std::exception& error) {
      return describe_out_of_memory(error).value_or(error.what());
    }
    return std::string("allocated");
  };
  const std::string advice =
      ". Less is needed by a smaller model, with a smaller micro-batch-size or seq-length, with "
      "recompute-granularity full, and on more hosts.";
  EXPECT_EQ(told_of([] { at::empty({int64_t{1} << 50}, at::kByte); }),
            "The host is out of memory: it has no more 1125899906842624 bytes" + advice);
  EXPECT_EQ(told_of([] { std::vector<char>(size_t{1} << 50); }),
            "The host is out of memory" + advice);
  EXPECT_EQ(told_of([] { throw std::runtime_error("another"); }), "another");
}

TEST(HostMemory, IsKnown) {
  EXPECT_GT(host_memory_bytes(), 1e8);
}

TEST(HostMemory, RefusesWhatCannotFit) {
  RunSpec spec;
  spec.model.hidden_size = 1000;
  spec.batch = {.seq_length = 1000, .micro_batch_size = 2};
  EXPECT_NO_THROW(check_host_memory(spec, 16e6));
  try {
    check_host_memory(spec, 15e6);
    FAIL() << "16 MB in 15";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "seq-length (1000) times micro-batch-size (2) is too long: one layer's hidden "
                 "states and normed ones take 0.016 GB on a rank, and this machine has 0.015 GB");
  }
  spec.dtype = Dtype::kBf16;
  spec.sizes.tp = 2;
  EXPECT_NO_THROW(check_host_memory(spec, 4e6));
}

}  // namespace
}  // namespace moetron
