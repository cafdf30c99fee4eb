// When choices that were found by time (kernels/timed_choices.h) come into use.
#pragma once

#include <cstdint>

namespace moetron {

// While one lives, what computes a shape stays what it was at the shape's first use: a forward and
// its recomputation, both within the life of one, give the same bits. Without any, the fastest way
// is used from when it is found. Of the whole process, as the choices are.
class ChoiceHold {
 public:
  ChoiceHold();
  ~ChoiceHold();
  ChoiceHold(const ChoiceHold&) = delete;
  ChoiceHold& operator=(const ChoiceHold&) = delete;

  // Whether a choice found in `period` may come into use now. A period ends with the last hold.
  static bool lets_in(int64_t period);
  static int64_t period();
};

}  // namespace moetron
