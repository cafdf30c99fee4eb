#include "moetron/kernels/choice_hold.h"

#include <atomic>

namespace moetron {
namespace {

std::atomic<int64_t> num_holds = 0;
std::atomic<int64_t> num_ended_periods = 0;

}  // namespace

ChoiceHold::ChoiceHold() {
  ++num_holds;
}

ChoiceHold::~ChoiceHold() {
  if (--num_holds == 0) ++num_ended_periods;
}

bool ChoiceHold::lets_in(int64_t period) {
  return num_holds == 0 || period != num_ended_periods;
}

int64_t ChoiceHold::period() {
  return num_ended_periods;
}

}  // namespace moetron
