// model_tool MODEL_DIR INPUT.safetensors OUTPUT.safetensors: one forward and backward of a Hugging
// Face directory, for tests/oracles/model_oracle.py, which says what goes in and out. Of a PEFT
// adapter's folder those of its model with the updates, and the gradients are the updates'.
#include <cstring>
#include <iostream>
#include <map>
#include <numeric>

#include <ATen/ATen.h>

#include "moetron/arch/config_reader.h"
#include "moetron/autograd/parameter.h"
#include "moetron/base/error.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/formats/safetensors.h"
#include "moetron/formats/safetensors_writer_test.h"
#include "moetron/generate/generate.h"
#include "moetron/generate/reader_fixture.h"
#include "moetron/models/model.h"
#include "moetron/pipeline/block.h"

namespace moetron {
namespace {

struct NamedTensor {
  std::string name;
  at::Tensor value;
};

at::Tensor read_integers(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsEntry& entry = file.at(name);
  MT_CHECK_INPUT(entry.dtype == SafetensorsDtype::kI64, name, " is not int64");
  at::Tensor tensor = at::empty(entry.shape, at::kLong);
  std::memcpy(tensor.data_ptr(), file.bytes(entry).data(), entry.bytes);
  return tensor;
}

void write_floats(const std::string& path, const std::vector<NamedTensor>& tensors) {
  std::vector<SafetensorsTensor> wanted;
  for (const NamedTensor& tensor : tensors) {
    wanted.push_back({tensor.name, SafetensorsDtype::kF32, tensor.value.sizes().vec()});
  }
  SafetensorsWriter writer(path, wanted);
  for (const SafetensorsEntry& entry : writer.tensors()) {
    for (const NamedTensor& tensor : tensors) {
      if (tensor.name != entry.name) continue;
      const at::Tensor flat = tensor.value.to(at::kFloat).contiguous();
      writer.write(entry.name, {static_cast<const std::byte*>(flat.data_ptr()), flat.nbytes()});
    }
  }
  writer.commit();
}

// Each router's aux loss with coefficient 1, a layer at a time.
void add_aux_losses(ModelConfig config, AuxLossKind kind, const std::string& label,
                    const std::string& folder, const MicroBatch& micro_batch,
                    std::vector<NamedTensor>& out) {
  config.moe->aux_loss = kind;
  config.moe->aux_loss_coeff = 1;
  Model model(config);
  load_weights(folder, model.weights());
  ChunkRun run(model.chunks()[0], micro_batch);
  forward_chunk(run, {}, {.with_grad = false});
  const double tokens = static_cast<double>(micro_batch.tokens.numel());
  for (size_t i = 0; i < run.aux_losses().size(); ++i) {
    const at::Tensor& loss = run.aux_losses()[i];
    if (loss.defined()) out.push_back({concat("aux.", label, ".", i - 1), loss / tokens});
  }
}

// The experts' updates are one tensor of all.
void add_gradients(Model& model, std::vector<NamedTensor>& out) {
  std::map<std::string, at::Tensor> whole;
  for (Parameter* parameter : model.parameters()) {
    if (parameter->role() != Role::kTrained || parameter->is_tied()) continue;
    for (const NamedSlice& slice : parameter->slices(parameter->grad(), "grad.")) {
      at::Tensor& tensor = whole[slice.name];
      if (!tensor.defined()) tensor = at::zeros(slice.global_shape);
      at::Tensor place = tensor;
      for (int64_t dim = 0; dim < place.dim(); ++dim)
        place = place.narrow(dim, slice.begin[static_cast<size_t>(dim)], slice.view.size(dim));
      place.copy_(slice.view);
    }
  }
  for (const auto& [name, tensor] : whole)
    out.push_back({name, tensor.view(shape_in_file(name, tensor.sizes().vec()))});
}

// Greedy continuations of every row of `prompts`, the prompt included.
at::Tensor continue_greedily(Model& model, const at::Tensor& prompts) {
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < prompts.size(0); ++row) {
    const int64_t* first = prompts[row].data_ptr<int64_t>();
    const std::vector<int32_t> prompt(first, first + prompts.size(1));
    std::vector<int32_t> added;
    with_reader(model, [&](TextReader& reader) {
      added = generate(reader, {{prompt}}, {.max_new_tokens = 24, .sampling = {.greedy = true}})
                  .front();
    });
    const at::Tensor tokens =
        at::tensor(std::vector<int64_t>(added.begin(), added.end()), at::kLong);
    rows.push_back(at::cat({prompts[row], tokens}));
  }
  return at::stack(rows);
}

void run(const std::string& folder, const std::string& input_path, const std::string& output_path) {
  const bool is_adapter = holds_adapter(folder);
  const std::filesystem::path base =
      is_adapter ? base_of_adapter(folder, "") : std::filesystem::path(folder);
  const ModelConfig config = read_model_config(base);
  ModelSettings settings;
  if (is_adapter) settings.lora = read_adapter_config(folder, config).lora;
  Model model(config, settings);
  load_weights(base, model.weights());
  if (is_adapter) load_adapter(folder, model.adapter_weights());
  const SafetensorsFile input(input_path);
  MicroBatch micro_batch =
      make_micro_batch(read_integers(input, "input_ids"), read_integers(input, "labels"));
  const double targets = micro_batch.labels.ge(0).sum().item<double>();
  micro_batch.d_loss = 1 / targets;

  std::vector<NamedTensor> out;
  out.push_back({"logits", model.logits(micro_batch.tokens)});
  ChunkRun chunk_run(model.chunks()[0], micro_batch);
  forward_chunk(chunk_run, {});
  out.push_back({"loss", chunk_run.label_loss() / targets});
  backward_chunk(chunk_run, {});
  for (Parameter* parameter : model.parameters()) parameter->fold_tied_grad();
  add_gradients(model, out);
  if (config.moe && !is_adapter) {
    add_aux_losses(config, AuxLossKind::kSequence, "sequence", folder, micro_batch, out);
    add_aux_losses(config, AuxLossKind::kBatch, "batch", folder, micro_batch, out);
  }
  if (input.find("generate.prompt") != nullptr) {
    const at::Tensor prompts = read_integers(input, "generate.prompt");
    out.push_back({"generate.tokens", continue_greedily(model, prompts)});
  }
  write_floats(output_path, out);
}

}  // namespace
}  // namespace moetron

int main(int argc, char** argv) {
  try {
    MT_CHECK_CONFIG(argc == 4, "usage: model_tool MODEL_DIR INPUT.safetensors OUTPUT.safetensors");
    moetron::run(argv[1], argv[2], argv[3]);
    return 0;
  } catch (const moetron::Error& error) {
    std::cerr << error.what() << "\n";
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return moetron::kExitInternal;
  }
}
