#include "moetron/bench/link_rates.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"

namespace moetron {
namespace {

constexpr int64_t kSent = int64_t{1} << 26;  // bytes of a rank's all-to-all, divided on a CPU
constexpr int64_t kRowBytes = 8192;          // a row of 4096 in bf16
constexpr int64_t kPings = 100;              // between two looks at the clock

// Equally many rows from each rank to each.
class AllToAll {
 public:
  AllToAll(Communicator& group, c10::Device device, int64_t bytes)
      : group_(group),
        rows_(std::max<int64_t>(1, bytes / kRowBytes / group.size())),
        counts_(static_cast<size_t>(group.size()), rows_),
        sent_(rows(device)),
        received_(rows(device)) {}

  Work start() { return group_.all_to_all_v(received_, sent_, counts_, counts_); }
  // Of many under way, each needs memory of its own.
  Work start_into(const at::Tensor& received) {
    return group_.all_to_all_v(received, sent_, counts_, counts_);
  }
  at::Tensor room() const { return at::empty_like(received_); }
  int64_t bytes_to_others() const { return (group_.size() - 1) * rows_ * kRowBytes; }

 private:
  at::Tensor rows(c10::Device device) const {
    return at::zeros({group_.size() * rows_, kRowBytes},
                     at::TensorOptions(device).dtype(at::kByte));
  }

  Communicator& group_;
  int64_t rows_;  // to each rank
  std::vector<int64_t> counts_;
  at::Tensor sent_, received_;  // [ranks * rows, kRowBytes] bytes
};

class LinkBench {
 public:
  LinkBench(Communicator& world, c10::Device device, const CalibrationShapes& shapes,
            double seconds)
      : world_(world),
        device_(device),
        shapes_(shapes),
        seconds_(seconds),
        dtype_(device.is_cuda() ? at::kBFloat16 : at::kFloat) {}

  // All groups of a kind at the same time, as in a run.
  LinkRates::Link all_to_all(Communicator& group) {
    AllToAll exchange(group, device_, sent_bytes());
    const SteadyTime time =
        time_together(world_, device_, seconds_, [&] { exchange.start().wait(); });
    const int64_t bytes = exchange.bytes_to_others();
    return {static_cast<double>(bytes) / time.seconds, time.spread, bytes, group.size()};
  }

  // Half of the way there and back, between the first and the last rank; the others wait.
  SteadyTime latency() {
    const int last = world_.size() - 1, me = world_.rank();
    SteadyTime time;
    if (me == 0 || me == last) {
      const at::Tensor message = at::zeros({1}, at::TensorOptions(device_).dtype(at::kFloat));
      const auto ping = [&] {
        if (me == 0) world_.send(message, last).wait();
        world_.recv(message, me == 0 ? last : 0).wait();
        if (me == last) world_.send(message, 0).wait();
      };
      std::vector<double> times;
      for (int look = -2; look < 8; ++look) {
        const double both_ways = repeat_for(device_, 0, kPings, ping).front();
        if (look >= 0) times.push_back(both_ways / 2);
      }
      time = steady_time_of(times);
    }
    return {largest(world_, device_, time.seconds), largest(world_, device_, time.spread)};
  }

  // A product's time alone over its time while all-to-alls go on beside it.
  double rate_beside(Communicator& group, const LinkRates::Link& link) {
    const ModelConfig& model = shapes_.models.front();
    const at::TensorOptions options = at::TensorOptions(device_).dtype(dtype_);
    const at::Tensor x = at::randn({shapes_.tokens, model.hidden_size}, options),
                     weight = at::randn({model.hidden_size, 2 * model.hidden_size}, options);
    const auto product = [&] { at::mm(x, weight); };
    const double once = largest(world_, device_, steady_time(device_, seconds_, product).seconds);
    const double transfer = static_cast<double>(link.bytes) / link.rate;
    // Transfers that go on for longer than the products, even where these take three times as long.
    constexpr double kMostTransfers = 48, kLongest = 4;
    const double products_time = std::min(seconds_ / 8, kMostTransfers * transfer / kLongest);
    const int64_t products = std::max<int64_t>(1, std::llround(products_time / once));
    const auto transfers =
        static_cast<int64_t>(std::ceil(kLongest * static_cast<double>(products) * once / transfer));
    AllToAll exchange(group, device_, sent_bytes());
    std::vector<at::Tensor> rooms;
    for (int64_t i = 0; i < std::min<int64_t>(transfers, kMostTransfers); ++i)
      rooms.push_back(exchange.room());
    std::vector<double> alone, beside;
    for (int look = -1; look < 8; ++look) {
      synchronize(device_);
      world_.barrier();
      const double without = repeat_for(device_, 0, products, product).front();
      world_.barrier();
      std::vector<Work> under_way;
      for (int64_t i = 0; i < transfers; ++i)
        under_way.push_back(exchange.start_into(rooms[static_cast<size_t>(i) % rooms.size()]));
      const double with = repeat_for(device_, 0, products, product).front();
      for (Work& work : under_way) work.wait();
      if (look < 0) continue;
      alone.push_back(without);
      beside.push_back(with);
    }
    return 1 / largest(world_, device_, median(beside) / median(alone));
  }

 private:
  int64_t sent_bytes() const { return kSent / shapes_.divided_by; }

  Communicator& world_;
  c10::Device device_;
  const CalibrationShapes& shapes_;
  double seconds_;
  at::ScalarType dtype_;
};

}  // namespace

double largest(Communicator& group, c10::Device device, double value) {
  const at::Tensor all = at::full({1}, value, at::TensorOptions(device).dtype(at::kDouble));
  group.all_reduce(all, ReduceOp::kMax).wait();
  return all.item<double>();
}

LinkRates measure_links(Communicator& world, c10::Device device, const NodePlace& place,
                        const CalibrationShapes& shapes, double seconds) {
  MT_CHECK(world.size() > 1, "a rank alone has no links");
  LinkBench bench(world, device, shapes, seconds);
  LinkRates links;
  // Ranks of a machine follow each other.
  const int first = world.rank() - place.local_rank;
  const auto node = world.split(first, world.rank(), "calibrate, node");
  const auto network = world.split(place.local_rank, world.rank(), "calibrate, network");
  const double most = largest(world, device, node->size());
  const double least = -largest(world, device, -node->size());
  MT_CHECK_CONFIG(most == least, "plan --calibrate needs equally many ranks on each machine, not ",
                  least, " to ", most);
  Communicator* widest = &world;
  log_info("calibrate: all-to-alls");
  if (node->size() > 1) {
    links.node = bench.all_to_all(*node);
    widest = node.get();
  }
  if (network->size() > 1) {
    links.network = bench.all_to_all(*network);
    widest = network.get();
  }
  log_info("calibrate: messages");
  const SteadyTime latency = bench.latency();
  links.latency = latency.seconds;
  links.latency_spread = latency.spread;
  log_info("calibrate: products beside all-to-alls");
  links.rate_beside = bench.rate_beside(*widest, links.network ? *links.network : *links.node);
  return links;
}

SteadyTime time_together(Communicator& group, c10::Device device, double seconds,
                         const std::function<void()>& run, const Looks& looks) {
  constexpr int64_t kMostRuns = 1000;
  for (int i = 0; i < 2; ++i) run();
  group.barrier();
  const double once = largest(group, device, 1e-3 * measure_ms(device, run));
  const double of_a_look = seconds / 2 / static_cast<double>(looks.counted);
  const auto runs =
      std::clamp<int64_t>(std::llround(of_a_look / once), looks.least_runs, kMostRuns);
  std::vector<double> times;
  for (int64_t look = -looks.first; look < looks.counted; ++look) {
    const double time = repeat_for(device, 0, runs, run).front();
    if (look >= 0) times.push_back(time);
  }
  const SteadyTime mine = steady_time_of(times);
  return {largest(group, device, mine.seconds), largest(group, device, mine.spread)};
}

}  // namespace moetron
