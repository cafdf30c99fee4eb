#include "moetron/metrics/activation_memory.h"

#include <gtest/gtest.h>

namespace moetron {
namespace {

TEST(ActivationMemory, AddsUpByPurpose) {
  ActivationMemory memory;
  memory.add("attention", int64_t{1} << 29);
  memory.add("experts", int64_t{3} << 28);
  memory.add("experts", int64_t{1} << 28);
  memory.peak_bytes = int64_t{2} << 30;
  ASSERT_EQ(memory.kept.size(), 2u);
  EXPECT_EQ(memory.kept[1].purpose, "experts");
  EXPECT_EQ(memory.kept[1].bytes, int64_t{1} << 30);
  EXPECT_EQ(memory.kept_bytes(), int64_t{3} << 29);
  EXPECT_EQ(describe(memory),
            "activations of a micro-batch: 1.50 GiB kept (experts 1.00 GiB, attention 512.00 MiB), "
            "2.00 GiB at most");
  memory.add("router", 4);  // too little to be worth a word
  EXPECT_EQ(describe(memory),
            "activations of a micro-batch: 1.50 GiB kept (experts 1.00 GiB, attention 512.00 MiB), "
            "2.00 GiB at most");
}

TEST(ActivationMemory, DescribesWhatIsSmall) {
  ActivationMemory memory;
  EXPECT_EQ(describe(memory), "activations of a micro-batch: 0 bytes kept, 0 bytes at most");
  memory.add("router", 1023);
  memory.peak_bytes = 1536;
  EXPECT_EQ(describe(memory),
            "activations of a micro-batch: 1023 bytes kept (router 1023 bytes), 1.50 KiB at most");
}

}  // namespace
}  // namespace moetron
