#include <cstdlib>
#include <gmock/gmock.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/json.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/doctor_gpu.h"

namespace moetron {
namespace {

struct Examined {
  int exit_code = 0;
  std::string out;
};

Examined run(const std::vector<const char*>& words) {
  testing::internal::CaptureStdout();
  const ParsedCommandLine parsed = parse_command_line(static_cast<int>(words.size()), words.data());
  const int exit_code = run_doctor(parsed);
  return {exit_code, testing::internal::GetCapturedStdout()};
}

TEST(Doctor, TellsALineForEachThing) {
  const std::string save = std::filesystem::temp_directory_path().string();
  const Examined outcome = run({"moetron", "doctor", "--save", save.c_str()});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out;
  for (const char* name : {"processor: ", "memory: ", "shared memory: ", "open files: ", "save: ",
                           "libtorch: built with ", "own name: ", "threads: ", "variables: "})
    EXPECT_THAT(outcome.out, testing::HasSubstr(name));
  EXPECT_THAT(outcome.out, testing::HasSubstr(" 0 fail\n"));
}

TEST(Doctor, AFailureIsExitCodeTwo) {
  ::setenv("RANK", "many", 1);
  const Examined outcome = run({"moetron", "doctor", "--json"});
  ::unsetenv("RANK");
  EXPECT_EQ(outcome.exit_code, 2);
  const Json json = parse_json(outcome.out, "output");
  EXPECT_EQ(json.at("failed"), 1) << outcome.out;
  for (const Json& check : json.at("checks")) {
    EXPECT_EQ(check.at("verdict") == "fail", check.at("name") == "launcher") << check;
  }
}

// As the environment of a node is before its ranks are started.
TEST(Doctor, TellsThatNodesCannotMeet) {
  for (const auto& [name, value] :
       {std::pair("NNODES", "2"), {"NODE_RANK", "0"}, {"MASTER_ADDR", "no-such-host.invalid"}})
    ::setenv(name, value, 1);
  const Examined outcome = run({"moetron", "doctor"});
  for (const char* name : {"NNODES", "NODE_RANK", "MASTER_ADDR"}) ::unsetenv(name);
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.out, testing::HasSubstr("meeting place: no-such-host.invalid port 7000: "));
}

TEST(Doctor, KernelsRunOnWhatTheyWereBuiltFor) {
  EXPECT_TRUE(has_kernels_for("90a", 9, 0));
  EXPECT_FALSE(has_kernels_for("90a", 10, 0));
  EXPECT_TRUE(has_kernels_for("80-real,90a", 8, 6));
  EXPECT_FALSE(has_kernels_for("86", 8, 0));
  EXPECT_TRUE(has_kernels_for("90a,120a", 12, 0));
  for (const char* text : {"", ",", "a", "native", "-"}) EXPECT_FALSE(has_kernels_for(text, 9, 0));
}

}  // namespace
}  // namespace moetron
