#include "moetron/schedule/validate_schedule.h"

#include <algorithm>
#include <functional>
#include <gmock/gmock.h>
#include <random>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/schedule/message.h"

namespace moetron {
namespace {

using Mutation = std::function<void(StepList&, std::mt19937&)>;

// Every kind with the mutation in a list of a random rank, many times: each must be caught.
void expect_caught(const Mutation& mutate) {
  for (const auto& [name, kind, has_blocks] : kSchedules) {
    if (kind == ScheduleKind::kDualPipeVPlus) continue;  // a search, with tests of its own
    for (unsigned seed = 0; seed < 20; ++seed) {
      SCOPED_TRACE(concat(name_of(kind), ", seed ", seed));
      Schedule schedule = make_schedule({kind, 4, 12});
      ASSERT_NO_THROW(validate_schedule(schedule));
      std::mt19937 random(seed);
      mutate(schedule.steps[random() % 4], random);
      EXPECT_THROW(validate_schedule(schedule), InternalError);
    }
  }
}

// A random step of those that the condition holds for.
size_t pick(const StepList& list, std::mt19937& random,
            const std::function<bool(const Step&)>& condition) {
  std::vector<size_t> places;
  for (size_t i = 0; i < list.size(); ++i) {
    if (condition(list[i])) places.push_back(i);
  }
  return places.at(random() % places.size());
}

StepList::iterator at(StepList& list, size_t place) {
  return list.begin() + static_cast<std::ptrdiff_t>(place);
}

bool is_any(const Step&) {
  return true;
}

bool makes_weight_gradients(const Step& step) {
  return step.action.kind == ActionKind::kBackwardWeight ||
         step.action.kind == ActionKind::kBackward;
}

bool reduces(const Step& step) {
  return step.beside && step.beside->kind == ActionKind::kReduce;
}

TEST(Validator, CatchesADroppedStep) {
  expect_caught([](StepList& list, std::mt19937& random) {
    list.erase(at(list, pick(list, random, is_any)));
  });
}

TEST(Validator, CatchesADroppedWeightGradient) {
  expect_caught([](StepList& list, std::mt19937& random) {
    list.erase(at(list, pick(list, random, makes_weight_gradients)));
  });
}

TEST(Validator, CatchesADoubledStep) {
  expect_caught([](StepList& list, std::mt19937& random) {
    const size_t place = pick(list, random, is_any);
    list.insert(at(list, place), Step(list[place]));
  });
}

// As if outputs, or gradients, left in another order than the receiver expects.
TEST(Validator, CatchesSwappedSends) {
  expect_caught([](StepList& list, std::mt19937& random) {
    Action& first = list[pick(list, random, is_any)].action;
    const auto is_other = [&](const Step& step) {
      return step.action.kind == first.kind && step.action.chunk == first.chunk &&
             step.action.micro_batch != first.micro_batch;
    };
    std::swap(first.micro_batch, list[pick(list, random, is_other)].action.micro_batch);
  });
}

TEST(Validator, CatchesWeightGradientsInAnotherOrder) {
  expect_caught([](StepList& list, std::mt19937& random) {
    Step& first = list[pick(list, random, makes_weight_gradients)];
    const auto is_other = [&](const Step& step) {
      return makes_weight_gradients(step) && step.action.chunk == first.action.chunk &&
             step.action.micro_batch != first.action.micro_batch;
    };
    std::swap(first, list[pick(list, random, is_other)]);
  });
}

TEST(Validator, CatchesAMissingReduction) {
  expect_caught([](StepList& list, std::mt19937& random) {
    list[pick(list, random, reduces)].beside.reset();
  });
}

TEST(Validator, CatchesADoubledReduction) {
  expect_caught([](StepList& list, std::mt19937& random) {
    const size_t place = pick(list, random, reduces);
    list.insert(at(list, place + 1), {*list[place].beside, {}});
  });
}

void expect_error(const Schedule& schedule, const std::string& text) {
  EXPECT_THAT([&] { validate_schedule(schedule); },
              testing::ThrowsMessage<InternalError>(testing::HasSubstr(text)));
}

Schedule one_rank(StepList list) {
  return {ScheduleKind::kZbH1, {Placement::Shape::kStraight, 1}, 2, {std::move(list)}, {4}};
}

constexpr Action forward(int micro_batch) {
  return {ActionKind::kForward, 0, micro_batch};
}
constexpr Action backward(int micro_batch) {
  return {ActionKind::kBackward, 0, micro_batch};
}
constexpr Action backward_input(int micro_batch) {
  return {ActionKind::kBackwardInput, 0, micro_batch};
}
constexpr Action weight(int micro_batch, Part part = Part::kWhole) {
  return {ActionKind::kBackwardWeight, 0, micro_batch, part};
}
constexpr Action kReduction = {ActionKind::kReduce, 0, 0};

TEST(Validator, AllowsWeightGradientsBesideWhatWaits) {
  EXPECT_NO_THROW(validate_schedule(one_rank({{forward(0)},
                                              {backward_input(0)},
                                              {forward(1), weight(0, Part::kFirstHalf)},
                                              {backward_input(1), weight(0, Part::kSecondHalf)},
                                              {weight(1)},
                                              {kReduction}})));
}

TEST(Validator, CatchesAHalfOfAWeightGradientTwice) {
  expect_error(one_rank({{forward(0)},
                         {backward_input(0)},
                         {forward(1), weight(0, Part::kFirstHalf)},
                         {backward_input(1), weight(0, Part::kFirstHalf)},
                         {weight(1), kReduction}}),
               "has W0(0)a too early or twice");
}

TEST(Validator, CatchesTheSecondHalfFirst) {
  expect_error(
      one_rank({{forward(0)}, {backward_input(0)}, {forward(1), weight(0, Part::kSecondHalf)}}),
      "has W0(0)b too early or twice");
}

TEST(Validator, CatchesHalvesOutOfOrder) {
  expect_error(one_rank({{forward(0)},
                         {forward(1)},
                         {backward_input(0)},
                         {backward_input(1)},
                         {weight(1, Part::kFirstHalf)}}),
               "weight gradient of W0(1)a where micro-batch 0 is next");
}

TEST(Validator, CatchesAHalfOfWhatHasNoHalves) {
  expect_error(one_rank({{{ActionKind::kForward, 0, 0, Part::kFirstHalf}}}), "does not exist");
}

TEST(Validator, CatchesWhatIsNoBlock) {
  expect_error(one_rank({{forward(0), backward(0)}}), "F0(0)&B0(0), which is no block");
  expect_error(one_rank({{forward(0), forward(1)}}), "which is no block");
  expect_error(one_rank({{forward(0)}, {backward_input(0), weight(0)}}), "which is no block");
  expect_error(one_rank({{forward(0), kReduction}}), "which is no block");
}

TEST(Validator, CatchesAReductionOfWhatIsNotComplete) {
  expect_error(one_rank({{forward(0)}, {backward(0), kReduction}}), "has R0 before its last");
}

TEST(Validator, CatchesAReductionThatComesLate) {
  Schedule schedule = make_schedule({ScheduleKind::kDualPipeV, 2, 4});
  StepList& list = schedule.steps[0];  // ..., B1(3)&R1, I0(2), ...
  const auto place = std::find_if(list.begin(), list.end(), reduces);
  const Action late = *place->beside;
  place->beside.reset();
  list.push_back({late, {}});
  expect_error(schedule, "rank 0 has R1 later than right behind its last weight gradient");
}

TEST(Validator, CatchesABackwardBeforeItsForward) {
  expect_error(one_rank({{backward(0)}, {forward(0)}}), "B0(0) too early");
}

TEST(Validator, CatchesAnActionOfAnUnknownMicroBatch) {
  expect_error(one_rank({{forward(2)}}), "F0(2), which does not exist");
}

TEST(Validator, CatchesADeadlock) {
  Schedule schedule = make_schedule({ScheduleKind::k1F1B, 2, 3});
  std::swap(schedule.steps[0][1], schedule.steps[0][2]);  // B0(0) before F0(1)
  std::swap(schedule.steps[1][1], schedule.steps[1][2]);  // F0(1) before B0(0)
  expect_error(schedule, "rank 0 waits for good before B0(0), step 1");
}

// On the last rank of a V the output of chunk 0 is the input of chunk 1.
TEST(Validator, CatchesAnOutputThatLeavesBeforeItsInputExists) {
  Schedule schedule = make_schedule({ScheduleKind::kDualPipeV, 2, 4});
  std::swap(schedule.steps[1][0], schedule.steps[1][1]);  // F1(0) before F0(0)
  expect_error(schedule, "waits for good before F1(0)");
}

// Rank 1 alternates from the start: it takes the second output only once rank 0 takes a gradient.
// The order in each channel stays, and whoever buffers enough would get through.
TEST(Validator, CatchesSendsThatOnlyBuffersCanSave) {
  Schedule schedule = make_schedule({ScheduleKind::k1F1B, 2, 6});
  std::stable_partition(schedule.steps[0].begin(), schedule.steps[0].end(),
                        [](const Step& step) { return step.action.kind == ActionKind::kForward; });
  schedule.declared_peak[0] = 12;
  expect_error(schedule, "as messages are not buffered");
}

TEST(Validator, CatchesAnEarlySendInAV) {
  Schedule schedule = make_schedule({ScheduleKind::kDualPipeV, 4, 9});
  StepList& list = schedule.steps[0];  // ..., F0(7)&B1(3), ...
  const auto block = std::find_if(list.begin(), list.end(),
                                  [](const Step& step) { return step.beside.has_value(); });
  const Action early = block->action;
  *block = {*block->beside, {}};
  list.insert(list.begin() + early.micro_batch, {early, {}});
  schedule.declared_peak[0] += 1;
  expect_error(schedule, "as messages are not buffered");
}

TEST(Validator, CatchesAPeakOtherThanTheDeclaredOne) {
  Schedule schedule = make_schedule({ScheduleKind::kDualPipeV, 4, 9});
  schedule.declared_peak[1] += 1;
  expect_error(schedule, "rank 1 holds 9 chunk-micro-batches, not the 10 it declares");
}

TEST(Validator, CatchesAReductionInAForwardList) {
  Schedule schedule = make_forward_schedule({ScheduleKind::k1F1B, 2, 3});
  schedule.steps[1].push_back({kReduction, {}});
  EXPECT_THROW(validate_schedule(schedule), InternalError);
}

}  // namespace
}  // namespace moetron
