// What a run reads and writes: checkpoints, logs, data, the tokenizer.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_without_save(const Options& options) {
  return options.checkpoint.save.empty() ? "nothing is saved without save" : "";
}

std::string idle_without_load(const Options& options) {
  return options.checkpoint.load.empty() && options.checkpoint.save.empty()
             ? "nothing is loaded without load or save"
             : "";
}

std::string idle_on_mock_data(const Options& options) {
  return options.data.mock_data ? "mock-data has neither files nor documents" : "";
}

std::string idle_profile(const Options& options) {
  return options.logging.profile ? idle_without_save(options) : "";
}

std::string idle_without_profile(const Options& options) {
  return options.logging.profile ? "" : "it acts with profile only";
}

std::string idle_without_metrics(const Options& options) {
  return options.logging.metrics.empty() && options.checkpoint.save.empty()
             ? "no records are written without save or metrics"
             : "";
}

void declare_checkpoint(OptionTable& table) {
  table.begin_group("checkpoint", "Checkpoints", {Command::kPretrain});
  table
      .add(MT_FIELD(checkpoint, save),
           "Directory for checkpoints; a valid one in it is resumed. Always saved at the end. "
           "doctor tries how its file system keeps what is written; convert makes it.")
      .also("save-path")
      .for_commands({Command::kPretrain, Command::kDoctor, Command::kConvert})
      .differs(
          "A checkpoint is a Hugging Face model directory that any layout continues; the last "
          "step is always saved, and a valid one is resumed without --load.");
  table
      .add(MT_FIELD(checkpoint, load),
           "Directory of a checkpoint, of a Hugging Face model or of Megatron's weights to start "
           "from.")
      .also("load-path")
      .differs(
          "It takes a Hugging Face model, a checkpoint of Moetron's, or the weights alone of "
          "Megatron's, in either of its formats.")
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat, Command::kSimulate,
                     Command::kConvert});
  table.add(MT_FIELD(checkpoint, save_interval), "Saves every so many steps; 0: at the end only.")
      .unit("steps")
      .count_or_zero()
      .idle_when(idle_without_save);
  table
      .add(MT_FIELD(checkpoint, async_save),
           "Writes checkpoints while training goes on, from a copy in host memory; where that has "
           "no room, training waits for the write.")
      .idle_when(idle_without_save);
  table
      .add(MT_FIELD(checkpoint, save_failures),
           "Ends the run when so many saves in a row have failed; one that fails before is told, "
           "and training goes on. The save that ends a run must succeed.")
      .count()
      .ours()
      .idle_when(idle_without_save);
  table
      .add(MT_FIELD(checkpoint, keep_last),
           "Removes older checkpoints in save when a new one is in its place, and keeps the newest "
           "so many; 0: all, or the newest alone where keep-every is given.")
      .count_or_zero()
      .ours()
      .idle_when(idle_without_save);
  table
      .add(MT_FIELD(checkpoint, keep_every),
           "Keeps the checkpoints of steps that this divides, beside those of keep-last; 0: none.")
      .also("save-retain-interval")
      .unit("steps")
      .count_or_zero()
      .ours()
      .idle_when(idle_without_save);
  table
      .add(MT_FIELD(checkpoint, no_save_optim),
           "Leaves the optimizer's states out; a resumed run then differs.")
      .idle_when(idle_without_save);
  table
      .add(MT_FIELD(checkpoint, no_load_optim),
           "Starts with fresh optimizer states; a resumed run then differs.")
      .idle_when(idle_without_load);
  table
      .add(MT_FIELD(checkpoint, finetune),
           "Takes the weights alone of the run in load, and begins at step 0, as with a Hugging "
           "Face model in any case.")
      .idle_when(idle_without_load);
  table
      .add(MT_FIELD(checkpoint, load_layers),
           "Takes these layers alone of the model in load, from the first to the last named (0-6), "
           "numbered from 0; with its embedding, last norm and head.")
      .ours()
      .for_commands({Command::kPretrain, Command::kConvert});
  table
      .add(MT_FIELD(checkpoint, ckpt_step),
           "The step of the run in load that is taken; without it the newest.")
      .unit("step")
      .at_least(0)
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat})
      .idle_when(idle_without_load);
  table
      .add(MT_FIELD(checkpoint, accept_changes),
           "Continues a run although options that decide how it trains are others than before: all "
           "of them, or those that are named.")
      .alone_means("all")
      .ours()
      .idle_when(idle_without_load);
  table
      .add(MT_FIELD(checkpoint, use_checkpoint_args),
           "Where options of the model's shape contradict the model that is loaded, the model "
           "counts, and one line says so; without it they are refused.")
      .for_commands({Command::kPretrain, Command::kSimulate})
      .idle_when(idle_without_load);
  table
      .add(MT_FIELD(checkpoint, override_opt_param_scheduler),
           "Continues a run with the learning rates and weight decay that its options ask for now, "
           "without accept-changes.")
      .idle_when(idle_without_load);
  table
      .add(MT_FIELD(checkpoint, use_checkpoint_opt_param_scheduler),
           "Continues a run with the learning rates and weight decay that it was begun with, "
           "whatever its options ask for now.")
      .idle_when(idle_without_load);
  table
      .add(MT_FIELD(checkpoint, restart),
           "Begins anew where save holds checkpoints of which none can be loaded; they are moved, "
           "with the metrics, to a folder before_restart_N in it.")
      .ours()
      .idle_when(idle_without_save);
  table
      .add(MT_FIELD(checkpoint, verify),
           "Checks every block of the files that a manifest lists, and the CRCs of weights in "
           "Megatron's files, before they are used; done unless no-verify is given. convert also "
           "reads what it wrote again, if this is given, and "
           "compares it bit for bit with what it was made of.")
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat, Command::kConvert,
                     Command::kCompare})
      .ours();
  table.add_fieldless("no-save-rng", ValueKind::kFlag, "Leaves the random state out.")
      .no_effect("random numbers follow from seed, step and name: there is no state to save");
  table.add_fieldless("no-load-rng", ValueKind::kFlag, "Starts with the seed's random state.")
      .no_effect("random numbers follow from seed, step and name: there is no state to load");
}

void declare_logging(OptionTable& table) {
  table.begin_group("logging", "Logs", {Command::kPretrain});
  table.add(MT_FIELD(logging, log_interval), "Prints a line every so many steps.")
      .unit("steps")
      .count();
  table.add_fieldless("log-throughput", ValueKind::kFlag, "Adds TFLOP/s to the step's line.")
      .no_effect("TFLOP/s is always in the step's line");
  table.add(MT_FIELD(logging, tensorboard_dir), "Directory for TensorBoard events.");
  table
      .add(MT_FIELD(logging, metrics),
           "JSONL file with one record a step; without it, metrics.jsonl under save.")
      .ours();
  table.add(MT_FIELD(logging, log_params_norm),
            "Writes the norm of all parameters into metrics.jsonl, behind every step.");
  table.add(MT_FIELD(logging, log_num_zeros_in_grad),
            "Writes how many elements of the gradients are zero into metrics.jsonl.");
  table.add_fieldless("timing-log-level", ValueKind::kInteger, "Detail of the timings, 0 to 2.")
      .at_least(0)
      .at_most(2)
      .no_effect("there is one level of timings, always on");
  table
      .add(MT_FIELD(logging, profile),
           "Records what the ranks of the first pipeline do when in some steps: for each a picture "
           "and a Chrome trace, in the folder profile under save.")
      .differs("It draws what the ranks do; Megatron's starts Nsight's or PyTorch's profiler.")
      .idle_when(idle_profile);
  table.add(MT_FIELD(logging, profile_step_start), "The first step that profile records.")
      .count()
      .idle_when(idle_without_profile);
  table.add(MT_FIELD(logging, profile_step_end), "The first step behind those that it records.")
      .count()
      .idle_when(idle_without_profile);
  table.add(MT_FIELD(logging, profile_format), "The kind of the picture that profile draws.")
      .one_of({{"svg", PictureFormat::kSvg}, {"png", PictureFormat::kPng}})
      .ours()
      .idle_when(idle_without_profile);
  table
      .add(
          MT_FIELD(logging, hash_steps),
          "Every so many steps, adds hashes of the loss, of each gradient and of each parameter to "
          "the record of the step, which compare-loss compares; 0: never.")
      .unit("steps")
      .count_or_zero()
      .ours()
      .idle_when(idle_without_metrics);
}

void declare_data(OptionTable& table) {
  table.begin_group("data", "Data", {Command::kPretrain});
  table
      .add(MT_FIELD(data, data_path),
           "Prefix of a .bin and .idx pair, or weights and prefixes in turn; of sft, files of "
           "conversations instead of prefixes.")
      .required_unless("mock-data")
      .deciding_training();
  table
      .add(
          MT_FIELD(data, mock_data),
          "Trains on random tokens of the whole vocabulary instead of data-path: for measurements.")
      .differs("The tokens are random; Megatron's are numbers in a row.")
      .deciding_training();
  table
      .add(MT_FIELD(data, split),
           "Shares of the documents for training, validation and test, separated by commas.")
      .at_least(0)
      .idle_when(idle_on_mock_data)
      .deciding_training();
  table
      .add(MT_FIELD(data, data_cache_path),
           "Directory for the indices of samples, and for what was checked of the data; without "
           "it, every rank builds the indices in memory. Of sft, for conversations as tokens; "
           "without it a folder beside the data, or the user's cache.")
      .idle_when(idle_on_mock_data);
  table.add(MT_FIELD(data, eod_mask_loss), "Takes no loss at end-of-document tokens.")
      .idle_when(idle_on_mock_data)
      .deciding_training();
  table.add_fieldless("dataset", ValueKind::kChoice, "The format of the data; .bin and .idx pairs.")
      .of_guide()
      .one_of({Choice("LLama-Pretrain-Idxmap")});
  table
      .add(MT_FIELD(data, reset_position_ids),
           "Positions start again with every document of a sequence.")
      .idle_when(idle_on_mock_data)
      .deciding_training();
  table.add(MT_FIELD(data, reset_attention_mask), "Tokens attend within their own document only.")
      .idle_when(idle_on_mock_data)
      .deciding_training();
  table.add_fieldless("num-workers", ValueKind::kInteger, "Processes that load data.")
      .count_or_zero()
      .no_effect("data is mapped into memory and needs no loading processes");
  table
      .add_fieldless("max-padding-length", ValueKind::kInteger,
                     "Length that samples are padded to.")
      .of_guide()
      .count_or_zero()
      .no_effect("training sequences are packed and hold no padding");
}

}  // namespace

void declare_files(OptionTable& table) {
  declare_checkpoint(table);
  declare_logging(table);
  declare_data(table);
  const std::vector<Command> all{Command::kPretrain, Command::kPreprocess, Command::kGenerate,
                                 Command::kChat};
  table.begin_group("tokenizer", "Tokenizer", all);
  table
      .add(MT_FIELD(tokenizer, tokenizer),
           "hf: that of tokenizer-model; bytes: one token per byte.")
      .ours()
      .one_of({{"hf", TokenizerKind::kHf}, {"bytes", TokenizerKind::kBytes}})
      .deciding_training();
  table
      .add(MT_FIELD(tokenizer, tokenizer_model),
           "The tokenizer, a file or its directory: tokenizer.json, a vocabulary of tiktoken or a "
           "SentencePiece model; when generating, without it, the model's.")
      .differs("It names a file or a directory, not a name on the Hub.")
      .deciding_training();
  table
      .add(MT_FIELD(tokenizer, patch_tokenizer_type),
           "How the vocabulary is counted: DeepSeekTokenizer: the tokenizer's length plus "
           "extra-vocab-size less 2; Qwen3Tokenizer: its base vocabulary plus extra-vocab-size.")
      .one_of({{"DeepSeekTokenizer", PatchTokenizer::kDeepseek},
               {"Qwen3Tokenizer", PatchTokenizer::kQwen3}})
      .of_guide()
      .idle_when(idle_in_token_files);
}

}  // namespace moetron
