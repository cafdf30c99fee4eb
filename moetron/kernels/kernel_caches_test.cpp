#include "moetron/kernels/kernel_caches.h"

#include <map>

#include <gtest/gtest.h>

namespace moetron {
namespace {

TEST(KernelCaches, HoldOneOfEachTypeUntilCleared) {
  KernelCaches caches;
  caches.of<std::map<int, int>>()[3] = 4;
  EXPECT_TRUE((caches.of<std::map<int, long>>().empty()));
  EXPECT_EQ((caches.of<std::map<int, int>>().at(3)), 4);
  EXPECT_EQ((KernelCaches().of<std::map<int, int>>().count(3)), 0u);
  caches.clear();
  EXPECT_TRUE((caches.of<std::map<int, int>>().empty()));
  EXPECT_EQ(&KernelCaches::of_process(), &KernelCaches::of_process());
}

}  // namespace
}  // namespace moetron
