// What launchers say about a rank, and the fake backend's record.
#include "moetron/comm/rendezvous.h"

#include <csignal>
#include <gmock/gmock.h>
#include <map>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "moetron/comm/fake_communicator.h"

namespace moetron {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

RankEnvironment read(const std::map<std::string, std::string>& variables) {
  return read_rank_environment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string refusal(const std::map<std::string, std::string>& variables) {
  try {
    read(variables);
    return "accepted";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(RendezvousTest, ReadsTorchrun) {
  const RankEnvironment environment = read({{"RANK", "5"},
                                            {"WORLD_SIZE", "8"},
                                            {"LOCAL_RANK", "1"},
                                            {"LOCAL_WORLD_SIZE", "4"},
                                            {"MASTER_ADDR", "gpu7"},
                                            {"MASTER_PORT", "29500"},
                                            {"TORCHELASTIC_RUN_ID", "abc"},
                                            {"TORCHELASTIC_RESTART_COUNT", "2"},
                                            {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                            {"SLURM_PROCID", "0"},  // torchrun under srun
                                            {"SLURM_NTASKS", "2"}});
  EXPECT_EQ(environment.rank, 5);
  EXPECT_EQ(environment.size, 8);
  EXPECT_EQ(environment.local_rank, 1);
  EXPECT_EQ(environment.local_size, 4);
  EXPECT_EQ(environment.master_address, "gpu7");
  EXPECT_EQ(environment.master_port, 29500);
  EXPECT_EQ(environment.run_id, "abc");
  EXPECT_EQ(environment.restart_count, 2);
  EXPECT_TRUE(environment.agent_serves_store);
}

TEST(RendezvousTest, ReadsMpiSlurmAndNothing) {
  const RankEnvironment mpi = read({{"OMPI_COMM_WORLD_RANK", "1"},
                                    {"OMPI_COMM_WORLD_SIZE", "2"},
                                    {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                    {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                                    {"MASTER_PORT", "4000"}});
  EXPECT_EQ(mpi.rank, 1);
  EXPECT_EQ(mpi.master_address, "127.0.0.1");  // all ranks are on this host
  EXPECT_FALSE(mpi.agent_serves_store);

  std::map<std::string, std::string> slurm = {
      {"SLURM_PROCID", "3"},       {"SLURM_NTASKS", "16"},
      {"SLURM_STEP_ID", "0"},      {"SLURM_LOCALID", "3"},
      {"SLURM_JOB_ID", "1234567"}, {"SLURM_STEP_NODELIST", "gpu[07-09,12],login1"}};
  EXPECT_EQ(read(slurm).size, 16);
  EXPECT_EQ(read(slurm).local_rank, 3);
  EXPECT_EQ(read(slurm).master_address, "gpu07");
  EXPECT_EQ(read(slurm).master_port, 24567);
  EXPECT_EQ(read(slurm).run_id, "1234567");
  EXPECT_EQ(read(slurm).found,
            "16 ranks by Slurm (SLURM_PROCID), 1 here; they meet at gpu07:24567");
  slurm["SLURM_STEP_NODELIST"] = "a1,a2";
  EXPECT_EQ(read(slurm).master_address, "a1");
  slurm["MASTER_ADDR"] = "b1";
  slurm["MASTER_PORT"] = "77";
  EXPECT_EQ(read(slurm).master_address, "b1");
  EXPECT_EQ(read(slurm).master_port, 77);

  const RankEnvironment alone = read({{"MASTER_ADDR", "x"}});
  EXPECT_EQ(alone.rank, 0);
  EXPECT_EQ(alone.size, 1);
}

TEST(RendezvousTest, CountsSlurmsTasksOfAHost) {
  std::map<std::string, std::string> slurm = {{"SLURM_PROCID", "6"},
                                              {"SLURM_NTASKS", "7"},
                                              {"SLURM_STEP_ID", "0"},
                                              {"SLURM_JOB_ID", "1"},
                                              {"SLURM_STEP_NODELIST", "a[1-4]"},
                                              {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"}};
  for (const auto& [node, tasks] : {std::pair("0", 2), {"2", 2}, {"3", 1}}) {
    slurm["SLURM_NODEID"] = node;
    EXPECT_EQ(read(slurm).local_size, tasks) << node;
  }
  slurm["SLURM_NODEID"] = "4";
  EXPECT_THAT(refusal(slurm), AllOf(HasSubstr("SLURM_STEP_TASKS_PER_NODE"), HasSubstr("2(x3),1")));
  slurm["SLURM_NODEID"] = "0";
  for (const char* bad : {"", "x", "-1", "0", "2(x", "2(x)", "2(x0)", "99999999999"}) {
    slurm["SLURM_STEP_TASKS_PER_NODE"] = bad;
    EXPECT_THAT(refusal(slurm), HasSubstr("SLURM_STEP_TASKS_PER_NODE")) << bad;
  }
}

TEST(RendezvousTest, ABatchScriptIsOneRank) {
  const RankEnvironment batch =
      read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "3"}});
  EXPECT_EQ(batch.size, 1);
  EXPECT_THAT(batch.found, HasSubstr("srun"));
}

TEST(RendezvousTest, SaysWhoStartedTheRanks) {
  std::map<std::string, std::string> variables = {{"OMPI_COMM_WORLD_RANK", "1"},
                                                  {"OMPI_COMM_WORLD_SIZE", "2"},
                                                  {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  EXPECT_EQ(read(variables).found,
            "2 ranks by Open MPI (OMPI_COMM_WORLD_RANK), 2 here; they meet at 127.0.0.1:29500");
  variables = {{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}};
  EXPECT_EQ(read(variables).found, "1 rank by MPI (PMI_RANK), 1 here");
  variables = {{"RANK", "0"}, {"WORLD_SIZE", "1"}};
  EXPECT_THAT(read(variables).found, HasSubstr("by the environment (RANK)"));
  variables[kLaunchReport] = "x";
  EXPECT_THAT(read(variables).found, HasSubstr("by moetron launch"));
  EXPECT_EQ(read({}).found, "");
}

TEST(RendezvousTest, RefusesNumbersThatMakeNoSense) {
  const std::map<std::string, std::string> good = {{"RANK", "1"},
                                                   {"WORLD_SIZE", "4"},
                                                   {"LOCAL_RANK", "1"},
                                                   {"LOCAL_WORLD_SIZE", "2"},
                                                   {"MASTER_ADDR", "a"},
                                                   {"MASTER_PORT", "29500"},
                                                   {"TORCHELASTIC_RESTART_COUNT", "0"},
                                                   {"OMP_NUM_THREADS", "3"}};
  EXPECT_EQ(read(good).omp_num_threads, 3);
  EXPECT_EQ(read({{"OMP_NUM_THREADS", "4,2"}}).omp_num_threads, 4);  // of the outermost level
  for (const auto& [name, value] : good) {
    if (name == "MASTER_ADDR") continue;
    for (const char* bad : {"-1", "99999999999999999999", "2147483647", "two", "", " 1", "1.5"}) {
      if (name == "TORCHELASTIC_RESTART_COUNT" && std::string(bad) == "2147483647") continue;
      auto variables = good;
      variables[name] = bad;
      EXPECT_THAT(refusal(variables), AllOf(HasSubstr(name), HasSubstr(bad))) << name << bad;
    }
    const bool may_be_zero = name.ends_with("RANK") || name.ends_with("COUNT");
    auto variables = good;
    variables[name] = "0";
    EXPECT_EQ(refusal(variables) == "accepted", may_be_zero) << name;
  }
  auto full = good;
  full["LOCAL_RANK"] = "2";
  EXPECT_EQ(refusal(full), "LOCAL_RANK (2) must be below LOCAL_WORLD_SIZE (2)");
  full["LOCAL_WORLD_SIZE"] = "5";
  EXPECT_EQ(refusal(full), "LOCAL_WORLD_SIZE (5) must be at most WORLD_SIZE (4)");
}

TEST(RendezvousTest, NamesWhatIsMissingOrWrong) {
  EXPECT_EQ(refusal({{"RANK", "1"}}), "the environment variable WORLD_SIZE is missing");
  EXPECT_EQ(refusal({{"WORLD_SIZE", "4"}}), "the environment variable RANK is missing");
  EXPECT_THAT(refusal({{"RANK", "1"}, {"WORLD_SIZE", "2"}}), HasSubstr("MASTER_ADDR is missing"));
  EXPECT_EQ(refusal({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}),
            "the environment variable MASTER_PORT is missing");
  EXPECT_EQ(refusal({{"RANK", "4"}, {"WORLD_SIZE", "4"}}), "RANK (4) must be below WORLD_SIZE (4)");
  EXPECT_THAT(refusal({{"RANK", "one"}, {"WORLD_SIZE", "4"}}),
              AllOf(HasSubstr("RANK"), HasSubstr("\"one\"")));
  EXPECT_THAT(refusal({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "-2"}}),
              AllOf(HasSubstr("OMPI_COMM_WORLD_SIZE"), HasSubstr("\"-2\"")));
  EXPECT_THAT(
      refusal({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "70000"}}),
      AllOf(HasSubstr("MASTER_PORT"), HasSubstr("70000")));
}

TEST(RendezvousTest, AStoreThatIsNotThereIsAConfigError) {
  RankEnvironment environment;
  environment.rank = 1;
  environment.size = 2;
  environment.master_address = "127.0.0.1";
  environment.master_port = 1;
  try {
    connect_gloo(environment, std::chrono::seconds(1), std::chrono::milliseconds(300));
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("rank 1 cannot reach the store"),
                                    HasSubstr("MASTER_ADDR (127.0.0.1), MASTER_PORT (1)")));
  }
}

TEST(RendezvousTest, AServerThatSaysNothingEndsTheWaitInTime) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener, 8), 0);  // the kernel accepts in its place; nobody answers
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  RankEnvironment environment;
  environment.rank = 1;
  environment.size = 2;
  environment.master_address = "127.0.0.1";
  environment.master_port = ntohs(address.sin_port);
  try {
    connect_store(environment, std::chrono::milliseconds(500));
    FAIL();
  } catch (const StoreError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("MASTER_ADDR (127.0.0.1), MASTER_PORT ("),
                      HasSubstr(std::to_string(environment.master_port)), HasSubstr("0.5 s")));
  }
  ::close(listener);
}

TEST(RendezvousTest, ABrokenConnectionEndsNoProcess) {
  std::signal(SIGPIPE, SIG_DFL);
  RankEnvironment environment;
  environment.master_address = "127.0.0.1";  // port 0: any that is free
  const auto store = connect_store(environment, std::chrono::minutes(1));
  EXPECT_EQ(std::signal(SIGPIPE, SIG_IGN), SIG_IGN);
}

TEST(FakeCommunicatorTest, RecordsEveryOperationOfAllGroupsInOrder) {
  auto log = std::make_shared<CommLog>();
  auto world = make_fake_world(5, 8, log);
  world->set_phase("plan");
  auto pair = world->subgroup({4, 5}, "pair");
  world->all_reduce(at::ones({10})).wait();
  pair->all_gather(at::empty({6}, at::kBFloat16), at::ones({3}, at::kBFloat16)).wait();
  pair->send(at::ones({2}), 0, 3).wait();
  world->broadcast(at::ones({1}, at::kByte), 7).wait();
  world->barrier();
  ASSERT_EQ(log->size(), 5u);
  const std::vector<std::string> operations = {"all_reduce", "all_gather", "send", "broadcast",
                                               "barrier"};
  const std::vector<int64_t> bytes = {40, 12, 8, 1, 0};
  const std::vector<int> peers = {-1, -1, 4, 7, -1};
  for (size_t i = 0; i < operations.size(); ++i) {
    EXPECT_EQ((*log)[i].operation, operations[i]);
    EXPECT_EQ((*log)[i].bytes, bytes[i]);
    EXPECT_EQ((*log)[i].peer, peers[i]);
    EXPECT_EQ((*log)[i].rank, 5);
    EXPECT_EQ((*log)[i].phase, "plan");
  }
  EXPECT_EQ((*log)[1].group, "pair");
  EXPECT_EQ((*log)[1].members, (std::vector<int>{4, 5}));
  EXPECT_EQ((*log)[2].tag, 3);
}

TEST(FakeCommunicatorTest, ResultsAreThoseOfEqualPeers) {
  auto world = make_fake_world(1, 3, std::make_shared<CommLog>());
  const at::Tensor sum = at::full({2}, 5, at::kLong);
  world->all_reduce(sum).wait();
  EXPECT_EQ(sum[0].item<int64_t>(), 15);
  world->all_reduce(sum, ReduceOp::kMax).wait();
  EXPECT_EQ(sum[1].item<int64_t>(), 15);
  const at::Tensor gathered = at::empty({3, 2});
  world->all_gather(gathered, at::arange(2, at::kFloat)).wait();
  EXPECT_TRUE(at::equal(gathered, at::arange(2, at::kFloat).expand({3, 2})));
  const at::Tensor piece = at::empty({2}, at::kLong);
  world->reduce_scatter(piece, at::arange(6)).wait();
  EXPECT_TRUE(at::equal(piece, at::arange(2) * 3 + 6));
  const at::Tensor rows = at::empty({4, 1}, at::kLong);
  const std::vector<int64_t> expected = {0, 3, 1};
  const std::vector<int64_t> sent = {1, 2, 0};
  world->all_to_all_v(rows, at::arange(1, 4).view({3, 1}), expected, sent).wait();
  EXPECT_TRUE(at::equal(rows.view({4}), at::tensor({2, 3, 0, 0}, at::kLong)));
  EXPECT_EQ(world->split(0, 0, "all")->size(), 3);
  world->abort("enough");
  EXPECT_THROW(world->barrier(), CommError);
}

}  // namespace
}  // namespace moetron
