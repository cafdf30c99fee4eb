// For tests/oracles/arch_oracle.py: prints, as one JSON object, the config.json that Moetron would
// write for a given one, its tensors, and its rotary numbers.
#include <cstdio>
#include <iostream>

#include <nlohmann/json.hpp>

#include "moetron/arch/config_reader.h"
#include "moetron/arch/config_writer.h"
#include "moetron/arch/inventory.h"
#include "moetron/arch/rope.h"
#include "moetron/base/error.h"

namespace {

void print_model(const char* path) {
  using namespace moetron;
  ModelConfig config = read_model_config(read_json(path), path);
  Json out;
  out["rewritten"] = write_model_config(config);
  config.source = nullptr;
  out["from_scratch"] = write_model_config(config);
  for (const TensorInfo& tensor : tensor_inventory(config))
    out["tensors"][tensor.name] = tensor.shape;
  out["inverse_frequencies"] = inverse_frequencies(config.rope);
  out["cos_sin_scale"] = rope_cos_sin_scale(config.rope);
  out["softmax_scale"] = attention_softmax_scale(config);
  std::cout << out.dump() << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    MT_CHECK_CONFIG(argc == 2, "usage: arch_tool CONFIG_JSON");
    print_model(argv[1]);
  } catch (const moetron::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
  return moetron::kExitDone;
}
