#include "moetron/train/start.h"

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/set_aside.h"
#include "moetron/checkpoint/stored_weights.h"
#include "moetron/comm/communicator.h"
#include "moetron/formats/companions.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// What to continue from in --save. Where none of its checkpoints loads, --restart moves them aside;
// where they cannot be listed, it does not help.
std::optional<FoundCheckpoint> find_in_save(const StartSpec& spec, Communicator& world) {
  on_rank_zero(&world, [&] { return static_cast<int64_t>(list_steps(spec.save).size()); });
  try {
    return find_latest(spec.save, &world, verification(spec.verify));
  } catch (const InputError& error) {
    if (!spec.restart)
      throw InputError(concat(error.what(),
                              "; nothing was changed: mend it, or begin anew with "
                              "--restart or another --save"));
  }
  on_rank_zero(&world, [&] {
    const fs::path aside = set_aside(spec.save, spec.metrics);
    log_warning(concat("restart: none of the checkpoints in ", spec.save,
                       " can be loaded; they were moved to ", aside.string(),
                       ", with the metrics, and the run begins anew"));
    return 0;
  });
  return std::nullopt;
}

// The model of an adapter: --base, else a model directory in --load, else what the adapter names.
fs::path find_base(const StartSpec& spec, const fs::path& adapter) {
  const fs::path load = spec.load;
  const bool is_model = !load.empty() && path_exists(load / kConfigFile);
  return base_of_adapter(adapter, spec.base.empty() && is_model ? spec.load : spec.base);
}

// Takes apart what is an adapter and what is its model.
void find_adapter(const StartSpec& spec, RunStart& start) {
  if (start.resume && holds_adapter(start.resume->folder)) {
    start.base = find_base(spec, start.resume->folder);
  } else if (!start.resume && holds_adapter(start.weights)) {
    start.adapter = start.weights;
    start.base = start.weights = find_base(spec, start.adapter);
  }
}

}  // namespace

std::shared_ptr<const Tokenizer> open_tokenizer(const TokenizerSpec& spec) {
  if (spec.kind == TokenizerKind::kBytes) return Tokenizer::bytes();
  return spec.path.empty() ? nullptr : Tokenizer::load(spec.path);
}

fs::path tokenizer_folder(const TokenizerSpec& spec) {
  const fs::path path = spec.path;
  if (path.empty() || is_folder(path)) return path;
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

namespace {

// The folder of the model, and whether it is that of weights that a run would begin with.
struct ModelPlace {
  fs::path folder;
  bool is_beginning = false;
};

ModelPlace find_model_place(const StartSpec& spec) {
  for (const fs::path folder : {spec.save, spec.load}) {
    if (folder.empty()) continue;
    const bool is_load = folder == spec.load;
    if (is_load && megatron_iteration(folder, spec.step)) continue;
    const auto steps = is_load && spec.step ? std::vector{*spec.step} : list_steps(folder);
    if (steps.empty()) continue;
    const fs::path step = checkpoint_folder(folder, steps.front());
    const bool is_new = is_load && folder != spec.save && spec.weights_alone;
    return {holds_adapter(step) ? find_base(spec, step) : step, is_new};
  }
  return {holds_adapter(spec.load) ? find_base(spec, spec.load) : fs::path(spec.load), true};
}

// Of weights that a run begins with.
StoredModel describe_start(const StartSpec& spec, const fs::path& weights) {
  return describe_stored(weights, spec.layers, spec.vocab_size,
                         megatron_iteration(weights, spec.step));
}

// --ckpt-step chooses among the checkpoints of --load, which the run began with. Where that is
// --save, too, the newest of its own is continued.
void check_step(const StartSpec& spec, const FoundCheckpoint& own) {
  const bool is_of_another =
      (!spec.load.empty() && spec.load != spec.save) || megatron_iteration(spec.load, spec.step);
  MT_CHECK_CONFIG(is_of_another || own.step == spec.step.value_or(own.step), "ckpt-step (",
                  spec.step.value_or(0), ") is not what the run would continue: save (", spec.save,
                  ") holds step ", own.step, "; leave ckpt-step out, or give another save");
}

}  // namespace

void tell_model(const RunStart& start, RunFacts& facts) {
  if (start.tokenizer != nullptr)
    facts.tokenizer = {start.tokenizer->vocab_size(), start.tokenizer->base_vocab_size()};
  facts.model_folder = start.model_folder();
  if (facts.model_folder.empty()) return;
  if (auto taken = taken_model(start.weights, start.stored))
    facts.told_model = {std::move(taken->config), std::move(taken->place)};
  facts.options_tell_model =
      !facts.told_model && start.base.empty() && !path_exists(facts.model_folder / kConfigFile);
}

void find_model(const StartSpec& spec, RunFacts& facts) {
  const ModelPlace place = find_model_place(spec);
  facts.model_folder = place.folder;
  if (place.folder.empty() || !place.is_beginning) return;
  check_holds_model(place.folder);
  RunStart start;
  start.weights = place.folder;
  start.stored = describe_start(spec, place.folder);
  tell_model(start, facts);
}

RunStart start_with_weights(const StartSpec& spec, const fs::path& weights) {
  RunStart start;
  start.weights = weights;
  if (!holds_adapter(weights)) start.stored = describe_start(spec, weights);
  find_adapter(spec, start);
  return start;
}

fs::path newest_weights(const fs::path& load) {
  const auto steps = list_steps(load);
  return steps.empty() ? load : checkpoint_folder(load, steps.front());
}

RunStart find_start(const StartSpec& spec, Communicator& world) {
  RunStart start;
  start.tokenizer = open_tokenizer(spec.tokenizer);
  start.tokenizer_folder = tokenizer_folder(spec.tokenizer);
  const fs::path save = spec.save;
  fs::path load = spec.load;
  bool is_model_given = true;  // and not a run's folder, whose checkpoint was checked

  if (!save.empty()) start.resume = find_in_save(spec, world);
  const bool is_own = start.resume.has_value();
  const auto iteration = megatron_iteration(load, spec.step);
  if (start.resume) {
    check_step(spec, *start.resume);
    log_info(
        concat("continues at step ", start.resume->step, " from ", start.resume->folder.string(),
               load.empty() || load == save ? "" : " (a checkpoint in --save wins over --load)"));
  } else if (!load.empty() && (load != save || spec.step) && !iteration) {
    start.resume = spec.step ? find_step(load, *spec.step, &world, verification(spec.verify))
                             : find_latest(load, &world, verification(spec.verify));
    if (start.resume && spec.weights_alone) {
      load = start.resume->folder;
      is_model_given = false;
      start.resume.reset();
    }
    if (start.resume) {
      log_info(concat("continues at step ", start.resume->step, " from ",
                      start.resume->folder.string()));
    }
  }
  MT_CHECK_CONFIG(
      !spec.layers || !start.resume || is_own, "load-layers (",
      range_text(spec.layers.value_or(LayerRange())), ") does not go with load (", load.string(),
      "), whose run would be continued with all its layers: --finetune begins anew with "
      "its weights");
  if (!start.resume && !load.empty()) {
    MT_CHECK_CONFIG(!spec.layers || !holds_adapter(load), "load-layers (",
                    range_text(spec.layers.value_or(LayerRange())), ") does not go with load (",
                    load.string(), "), which holds an adapter");
    if (!holds_adapter(load)) {
      if (!iteration) check_holds_model(load);
      start.stored = describe_start(spec, load);
    }
    if (is_model_given) check_model_files(load, &world, verification(spec.verify), iteration);
    start.weights = load;
    if (path_exists(load / "state" / "trainer.json")) {
      log_info(concat(
          "takes the weights of ", load.string(), ", not its optimizer and step: --save ",
          load.has_parent_path() ? load.parent_path().string() : ".", " would continue that run"));
    }
  }

  find_adapter(spec, start);
  take_tokenizer_files(start);
  return start;
}

void take_tokenizer_files(RunStart& start) {
  const fs::path folder = start.model_folder();
  const fs::path file =
      start.tokenizer == nullptr && !folder.empty() ? Tokenizer::find(folder) : "";
  if (!file.empty()) {
    start.tokenizer_folder = folder;
    // Many runs do without a tokenizer, and many models have a tokenizer.model that is of a kind
    // that is not read.
    try {
      start.tokenizer = Tokenizer::load(file);
    } catch (const InputError& error) {
      if (file.filename() == "tokenizer.json") throw;
      log_info(concat("goes on without the model's tokenizer: ", error.what()));
    }
  }
  if (!start.tokenizer_folder.empty()) {
    start.tokenizer_files = read_tokenizer_files(start.tokenizer_folder);
  }
}

}  // namespace moetron
