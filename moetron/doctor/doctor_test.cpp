#include <chrono>
#include <cstring>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/doctor/environment.h"
#include "moetron/doctor/machine.h"
#include "moetron/doctor/network.h"
#include "moetron/doctor/storage.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using testing::HasSubstr;

class Doctor : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    paths_ = {folder_ / "proc", folder_ / "groups", folder_ / "infiniband", folder_};
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const fs::path& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    write_file(folder_ / name, text);
  }
  fs::path folder_ = fs::temp_directory_path() / ("moetron_doctor_" + std::to_string(::getpid()));
  SystemPaths paths_;
};

TEST_F(Doctor, TheTightestGroupCounts) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("groups/cpu.max", "max 100000\n");
  write("groups/a/cpu.max", "150000 100000\n");
  write("groups/a/b/cpu.max", "400000 100000\n");
  write("groups/a/b/memory.max", "1073741824\n");
  write("groups/a/memory.max", "max\n");
  GroupLimits limits = read_group_limits(paths_);
  EXPECT_EQ(limits.cores, 1.5);
  EXPECT_EQ(limits.memory, int64_t{1} << 30);
  // The first version, in a container that sees its own root only.
  write("proc/self/cgroup", "4:memory:/outside/of/it\n1:cpu,cpuacct:/../x\n0::/\n");
  write("groups/memory/memory.limit_in_bytes", "2147483648\n");
  write("groups/cpu/cpu.cfs_quota_us", "50000\n");
  write("groups/cpu/cpu.cfs_period_us", "100000\n");
  limits = read_group_limits(paths_);
  EXPECT_EQ(limits.cores, 0.5);
  EXPECT_EQ(limits.memory, int64_t{2} << 30);
  write("groups/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("groups/cpu/cpu.cfs_quota_us", "-1\n");
  limits = read_group_limits(paths_);
  EXPECT_FALSE(limits.cores);
  EXPECT_FALSE(limits.memory);
}

TEST_F(Doctor, WhatGroupsLeaveIsAvailable) {
  EXPECT_FALSE(available_memory(paths_));
  write("proc/meminfo", "MemTotal:       8000 kB\nMemAvailable:   5000 kB\n");
  EXPECT_EQ(available_memory(paths_), 5000 * 1024);
  write("proc/self/cgroup", "0::/a\n");
  write("groups/a/memory.max", "3000000\n");
  EXPECT_EQ(available_memory(paths_), 5000 * 1024) << "the group does not tell what it uses";
  write("groups/a/memory.current", "2900000\n");
  EXPECT_EQ(available_memory(paths_), 100000);
  write("groups/a/memory.stat", "anon 5\ninactive_file 400000\n");
  EXPECT_EQ(available_memory(paths_), 500000);
  write("groups/a/memory.stat", "inactive_file -400000\n");
  write("groups/a/memory.current", "3900000\n");
  EXPECT_EQ(available_memory(paths_), 0);
  write("proc/self/cgroup", "4:memory:/\n");
  write("groups/memory/memory.limit_in_bytes", "2000000\n");
  write("groups/memory/memory.usage_in_bytes", "1500000\n");
  write("groups/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 250000\n");
  EXPECT_EQ(available_memory(paths_), 750000);
}

TEST_F(Doctor, HostileSystemFilesAreNoLimits) {
  const std::string texts[] = {"",
                               "\n",
                               ":",
                               "::",
                               "0::",
                               "0:",
                               "x",
                               std::string(2000000, ':'),
                               std::string("0::/\0/..//\n", 10),
                               "0::/../../../../etc\n",
                               "0::/" + std::string(100000, 'a') + "\n"};
  for (const char* value :
       {"", "max", "-5 0", "100 0", "1e400 1", "99999999999999999999 1", "a b"}) {
    write("groups/cpu.max", value);
    write("groups/memory.max", value);
    for (const std::string& text : texts) {
      write("proc/self/cgroup", text);
      const GroupLimits limits = read_group_limits(paths_);
      EXPECT_FALSE(limits.cores || limits.memory) << value;
    }
  }
  EXPECT_EQ(read_group_limits({folder_ / "absent", folder_ / "absent"}).cores, std::nullopt);
  for (const std::string& text : texts) {
    write("proc/cpuinfo", text);
    write("proc/meminfo", text);
    EXPECT_EQ(check_processor(paths_, 3).finding, "3 cores");
    EXPECT_EQ(check_memory(paths_).verdict, Verdict::kWarn);
  }
  write("proc/meminfo", "MemTotal: -5 kB\nMemAvailable: lots\n");
  EXPECT_EQ(check_memory(paths_).verdict, Verdict::kWarn);
}

TEST_F(Doctor, CoresAndMemoryBeyondTheGroupAreTold) {
  write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sse2 avx2\nprocessor : 1\n");
  write("proc/meminfo", "MemTotal:       67108864 kB\nMemAvailable:   33554432 kB\n");
  EXPECT_EQ(check_processor(paths_, 8).finding, "8 cores, AVX2");
  EXPECT_EQ(check_memory(paths_).finding, "64 GiB, 32 GiB available");
  write("proc/self/cgroup", "0::/\n");
  write("groups/cpu.max", "250000 100000\n");
  write("groups/memory.max", "1073741824\n");
  const Check processor = check_processor(paths_, 8);
  EXPECT_EQ(processor.verdict, Verdict::kWarn);
  EXPECT_EQ(processor.finding, "8 cores, AVX2, of which the control group allows 2.5");
  EXPECT_THAT(processor.cure, HasSubstr("--num-threads 2"));
  EXPECT_EQ(check_processor(paths_, 2).verdict, Verdict::kOk);
  const Check memory = check_memory(paths_);
  EXPECT_EQ(memory.verdict, Verdict::kWarn);
  EXPECT_THAT(memory.finding, HasSubstr("of which the control group allows 1 GiB"));
  write("proc/cpuinfo", "flags : sse2\n");
  EXPECT_EQ(check_processor(paths_, 2).verdict, Verdict::kWarn);
}

TEST_F(Doctor, LimitsAndClock) {
  EXPECT_EQ(check_open_files({1024, 1024}).verdict, Verdict::kWarn);
  EXPECT_EQ(check_open_files({1024, 524288}).cure, "ulimit -n 65536");
  EXPECT_EQ(check_open_files({RLIM_INFINITY, RLIM_INFINITY}).verdict, Verdict::kOk);
  EXPECT_EQ(check_limits(paths_).size(), 4u);
  EXPECT_EQ(check_clock(0).verdict, Verdict::kWarn);
  EXPECT_THAT(check_clock(0).finding, HasSubstr("1970-01-01"));
  paths_.shared_memory = folder_ / "absent";
  EXPECT_EQ(check_shared_memory(paths_).verdict, Verdict::kWarn);
}

TEST_F(Doctor, VariablesThatChangeRuns) {
  EXPECT_EQ(check_variables({{"HOME", "/root"}, {"AWS_SECRET", "x"}}).finding,
            "none that changes runs");
  EXPECT_EQ(check_variables({{"NCCL_DEBUG", "INFO"}, {"TOKEN", "x"}}).finding, "NCCL_DEBUG=INFO");
  const Check slow = check_variables({{"CUDA_LAUNCH_BLOCKING", "1"}, {"NCCL_P2P_DISABLE", "1"}});
  EXPECT_EQ(slow.verdict, Verdict::kWarn);
  EXPECT_EQ(slow.cure, "unset CUDA_LAUNCH_BLOCKING, NCCL_P2P_DISABLE");
  EXPECT_EQ(check_variables({{"CUDA_LAUNCH_BLOCKING", "0"}}).verdict, Verdict::kOk);
  const std::string line =
      describe(check_variables({{"NCCL_X", "a\nfail  b\x1b[2J" + std::string(999, 'y')}}));
  EXPECT_EQ(line.find_first_of("\n\x1b"), std::string::npos);
  EXPECT_LT(line.size(), 120u);
}

TEST_F(Doctor, TimeOutsOutlastTheNetwork) {
  EXPECT_EQ(check_time_outs({}, 600).verdict, Verdict::kOk);
  const Check check = check_time_outs({{"NCCL_IB_TIMEOUT", "22"}}, 60);  // 17 s, seven times
  EXPECT_EQ(check.verdict, Verdict::kWarn);
  EXPECT_EQ(check.cure, "--comm-timeout 241");
  for (const char* value : {"", "-3", "1e9", "nan", "x"})
    EXPECT_FALSE(check_time_outs({{"NCCL_IB_TIMEOUT", value}}, 600).finding.empty());
}

TEST_F(Doctor, NamesAndMeetingPlaces) {
  EXPECT_EQ(check_host_name("localhost", milliseconds(5000)).verdict, Verdict::kOk);
  EXPECT_EQ(check_host_name("no such host", milliseconds(5000)).verdict, Verdict::kWarn);
  EXPECT_EQ(check_meeting_place("no such host", 1, milliseconds(5000)).verdict, Verdict::kFail);
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* any = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(fd, any, length), 0);
  ASSERT_EQ(::getsockname(fd, any, &length), 0);
  const int port = ntohs(address.sin_port);
  EXPECT_THAT(check_meeting_place("127.0.0.1", port, milliseconds(5000)).finding,
              HasSubstr("nobody listens there yet"));
  ASSERT_EQ(::listen(fd, 1), 0);
  EXPECT_THAT(check_meeting_place("127.0.0.1", port, milliseconds(5000)).finding,
              HasSubstr("answers"));
  ::close(fd);
}

TEST_F(Doctor, StorageIsTriedAndLeftAsItWas) {
  const auto with_locks = [](bool has_locks) {
    return [has_locks](const fs::path& folder) {
      write_file(folder / "lock", "left behind");
      return has_locks;
    };
  };
  const Check absent = check_storage(folder_ / "not" / "there", with_locks(true));
  EXPECT_NE(absent.verdict, Verdict::kFail) << absent.finding;
  EXPECT_THAT(absent.finding, HasSubstr(folder_.string() + ": "));
  EXPECT_TRUE(fs::is_empty(folder_));
  EXPECT_EQ(check_storage(folder_, with_locks(false)).verdict, Verdict::kWarn);
  EXPECT_TRUE(fs::is_empty(folder_));
  EXPECT_EQ(check_storage("/proc/self", with_locks(true)).verdict, Verdict::kFail);
  EXPECT_EQ(file_system_name(0x6969), "nfs");
  EXPECT_EQ(file_system_name(0x1234), "file system 0x1234");
}

TEST_F(Doctor, ChecksAreToldAsLinesAndAsJson) {
  const std::vector<Check> checks = {ok("a", "1"), warn("b", "2", "do x"), fail("c", "3", "do y"),
                                     fail("d\xff", "4", "")};
  EXPECT_EQ(describe(checks[0]), "ok    a: 1");
  EXPECT_EQ(describe(checks[1]), "warn  b: 2. Cure: do x");
  EXPECT_EQ(summary(checks), "1 ok, 1 warn, 2 fail; first: c");
  EXPECT_TRUE(has_failure(checks));
  EXPECT_FALSE(has_failure({checks[0], checks[1]}));
  const Json json = parse_json(to_json_text(checks), "text");
  EXPECT_EQ(json.at("failed"), 2);
  EXPECT_EQ(json.at("checks")[1].at("verdict"), "warn");
  EXPECT_EQ(json.at("checks")[2].at("cure"), "do y");
}

}  // namespace
}  // namespace moetron
