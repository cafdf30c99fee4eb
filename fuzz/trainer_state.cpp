// state/trainer.json.
#include "moetron/checkpoint/trainer_state.h"

#include <nlohmann/json.hpp>

#include "fuzz/fuzz_folder.h"
#include "moetron/base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  return read_or_refuse([&] {
    const TrainerState state =
        parse_trainer_state(parse_json(text_of(data, size), "input"), "input");
    if (state.step < 0 || state.consumed_samples < 0 || state.optimizer_steps < 0) std::abort();
  });
}
