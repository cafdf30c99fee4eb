// How a process runs, and the commands beside training.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_without_nccl(const Options& options) {
  const RuntimeOptions& runtime = options.runtime;
  const bool may_use_nccl = runtime.distributed_backend == DistributedBackend::kNccl ||
                            (runtime.distributed_backend == DistributedBackend::kAuto &&
                             runtime.device != DeviceKind::kCpu);
  return may_use_nccl ? "" : "it acts with distributed-backend nccl only";
}

// Of explain, too, whose model is that of the run it explains.
std::string idle_unless_planned(const Options& options) {
  const bool explains = !options.explain.script.empty() || !options.explain.arguments.empty();
  const bool is_planned =
      explains || options.runtime.dry_run || options.simulate.cost == SimulatedCosts::kModel;
  return is_planned ? "" : "it acts with dry-run, or cost model, only";
}

std::string idle_without_ranks(const Options& options) {
  const bool acts = options.runtime.check_layout || idle_unless_planned(options).empty();
  return acts ? "" : "it acts with dry-run, check-layout, or cost model, only";
}

}  // namespace

void declare_runtime(OptionTable& table) {
  const std::vector<Command> all{Command::kPretrain,    Command::kPreprocess, Command::kGenerate,
                                 Command::kChat,        Command::kSimulate,   Command::kExplain,
                                 Command::kCompareLoss, Command::kPlot,       Command::kBench,
                                 Command::kLaunch,      Command::kDoctor,     Command::kConvert,
                                 Command::kCompare};
  const std::vector<Command> planned{Command::kPretrain, Command::kSimulate, Command::kExplain};
  const std::vector<Command> model{Command::kPretrain, Command::kGenerate, Command::kChat,
                                   Command::kBench};
  table.begin_group("runtime", "Running", model);
  table
      .add_fieldless("config", ValueKind::kText,
                     "TOML file with options; the command line wins over it.")
      .for_commands(all)
      .ours();
  table.add(MT_FIELD(runtime, seed), "Seed of all random numbers.").at_least(0).deciding_training();
  table
      .add(MT_FIELD(runtime, deterministic),
           "Same bits on every run of the same layout; always so on a CPU.")
      .also("deterministic-mode");
  table
      .add(MT_FIELD(runtime, device),
           "Where the model is computed; auto: on a GPU where the build and the machine have one.")
      .ours()
      .one_of(
          {{"auto", DeviceKind::kAuto}, {"cpu", DeviceKind::kCpu}, {"cuda", DeviceKind::kCuda}});
  table
      .add(MT_FIELD(runtime, distributed_backend),
           "How ranks talk; auto: nccl on GPUs, gloo on CPUs.")
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat})
      .also("comm-backend")
      .one_of({{"auto", DistributedBackend::kAuto},
               {"gloo", DistributedBackend::kGloo},
               {"nccl", DistributedBackend::kNccl},
               {"thread", Standing::kNotYet, "ranks as threads of one process"}});
  table.add(MT_FIELD(runtime, comm_timeout), "A rank that waits longer for its peers gives up.")
      .also_times("distributed-timeout-minutes", 60)
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat, Command::kDoctor})
      .unit("seconds")
      .above(0)
      .at_most(1e6);
  table
      .add(MT_FIELD(runtime, nccl_max_ctas),
           "Thread blocks that a collective of NCCL may occupy; 0: NCCL's own choice.")
      .ours()
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat})
      .unit("blocks")
      .at_least(0)
      .at_most(64)
      .idle_when(idle_without_nccl);
  table
      .add(
          MT_FIELD(runtime, peer_copies),
          "Between GPUs of a machine, what is gathered, summed and exchanged travels by their copy "
          "engines instead of NCCL's kernels, where they can write to each other's memory.")
      .ours()
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat})
      .idle_when(idle_without_nccl);
  table
      .add(MT_FIELD(runtime, num_threads),
           "Compute threads of a rank; 0: OMP_NUM_THREADS, and where that is not set all cores, "
           "divided "
           "among the ranks of the machine. Of convert and compare, those that read and write, 32 "
           "at most.")
      .also("threads")
      .also("process-num")
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat, Command::kBench,
                     Command::kDoctor, Command::kConvert, Command::kCompare})
      .unit("threads")
      .at_least(0)
      .at_most(4096)
      .ours();
  table
      .add(
          MT_FIELD(runtime, dry_run),
          "Prints what each rank would hold and how fast the run would be, and ends; reads no data "
          "and needs no GPU.")
      .for_commands({Command::kPretrain})
      .ours();
  table
      .add(
          MT_FIELD(runtime, check_layout),
          "Instead of the run, trains one step of a shrunken model in the asked layout, on threads "
          "of this process, and compares it with one rank.")
      .for_commands({Command::kPretrain})
      .ours();
  table
      .add(MT_FIELD(runtime, world_size),
           "Ranks of the run that is checked or dry-run; without it the launcher's, else 1.")
      .for_commands(planned)
      .unit("ranks")
      .count()
      .ours()
      .idle_when(idle_without_ranks);
  table
      .add(MT_FIELD(runtime, hardware),
           "TOML file of the rates of GPUs, links and hosts; without it dry-run takes nodes of 8 "
           "H100.")
      .for_commands(planned)
      .ours()
      .idle_when(idle_unless_planned);
}

namespace {

std::string idle_beyond_unit(const Options& options) {
  return options.simulate.cost == SimulatedCosts::kUnit ? "" : "it acts with cost unit only";
}

std::string idle_beyond_model(const Options& options) {
  return options.simulate.cost == SimulatedCosts::kModel ? "" : "it acts with cost model only";
}

void declare_simulate(OptionTable& table) {
  table.begin_group("simulate", "Simulating", {Command::kSimulate});
  table
      .add(MT_FIELD(simulate, cost),
           "What a step costs; unit: forward, input and weight gradients of a chunk 1 each; model: "
           "the model's time on hardware.")
      .one_of({{"unit", SimulatedCosts::kUnit}, {"model", SimulatedCosts::kModel}});
  table
      .add(MT_FIELD(simulate, num_micro_batches),
           "Micro-batches of a step; without it, global-batch-size over micro-batch-size and the "
           "data-parallel ranks.")
      .count();
  table
      .add(MT_FIELD(simulate, communication),
           "Expert communication that the forward, and the input gradient, of a chunk wait for.")
      .unit("forwards of a chunk")
      .at_least(0)
      .at_most(1e6)
      .idle_when(idle_beyond_unit);
  table
      .add(MT_FIELD(simulate, dispatch_scheme),
           "How often a token travels to its experts: once for each expert, rank or node, or to "
           "every rank (allgather); without it, as the dispatcher does.")
      .one_of({{"expert", DispatchScheme::kPerExpert},
               {"rank", DispatchScheme::kPerRank},
               {"node", DispatchScheme::kPerNode},
               {"allgather", DispatchScheme::kAllGather}})
      .idle_when(idle_beyond_model);
  table
      .add(MT_FIELD(simulate, lone_steps_wait),
           "Dispatch and combine of steps that are no blocks are waited for at once, as the "
           "published "
           "runs seem to do; Moetron itself computes beside them what it can.")
      .idle_when(idle_beyond_model);
  table.add(
      MT_FIELD(simulate, overlap_neighbours),
      "Under scheduler interleaved, every backward and the forward behind it run together, as "
      "under Megatron's overlap-moe-expert-parallel-comm; Moetron's own blocks are "
      "dualpipev's.");
  table.add(MT_FIELD(simulate, draw), "Draws the schedule into this .svg or .png file.");
}

std::string idle_beside_layout(const Options& options) {
  return options.preprocess.from ? "from names the keys" : "";
}

bool are_conversations(const Options& options) {
  const std::optional<RecordLayout> from = options.preprocess.from;
  return from && *from != RecordLayout::kWudao;
}

std::string idle_for_conversations(const Options& options) {
  return are_conversations(options) ? "from gives messages, not tokens" : "";
}

std::string idle_but_for_conversations(const Options& options) {
  return are_conversations(options) ? "" : "it is for conversations";
}

}  // namespace

void declare_explain(OptionTable& table) {
  table.begin_group("explain", "Explaining", {Command::kExplain});
  table
      .add(
          MT_FIELD(explain, script),
          "A shell script or a list of arguments, then what the script would be given; it is read, "
          "never run. The name --script may be left out.")
      .positional();
  table
      .add(MT_FIELD(explain, arguments),
           "The command line itself instead of a file; it may simply stand behind --.")
      .rest();
}

void declare_tools(OptionTable& table) {
  declare_simulate(table);
  table.begin_group("preprocess", "Preprocessing", {Command::kPreprocess});
  table.add(MT_FIELD(preprocess, input), "Text or JSONL files.").required();
  table
      .add(MT_FIELD(preprocess, output_prefix),
           "Start of the output's names; _KEY_document.bin and .idx follow.")
      .required();
  table.add(MT_FIELD(preprocess, json_keys), "Keys of a JSON record that hold text.")
      .idle_when(idle_beside_layout);
  table
      .add(MT_FIELD(preprocess, format),
           "What the input files are: JSON lines, a JSON document, or plain text, each file a "
           "document; auto: told by their names, and by their contents where the names do not say.")
      .one_of({{"auto", TextFormat::kAuto},
               {"jsonl", TextFormat::kJsonl},
               {"json", TextFormat::kJson},
               {"text", TextFormat::kText}})
      .idle_when(idle_for_conversations);
  table.add(MT_FIELD(preprocess, append_eod), "Ends every document with the end-of-document token.")
      .idle_when(idle_for_conversations);
  table
      .add(MT_FIELD(preprocess, prepend_bos),
           "Begins every document with what the tokenizer puts in front of a text.")
      .idle_when(idle_for_conversations);
  table.add(MT_FIELD(preprocess, workers), "Threads that tokenize.")
      .unit("threads")
      .at_least(1)
      .at_most(4096)
      .idle_when(idle_for_conversations);
  table
      .add(MT_FIELD(preprocess, skip_bad_lines),
           "Counts and skips documents that cannot be read instead of stopping.")
      .idle_when(idle_for_conversations);
  table
      .add(MT_FIELD(preprocess, from),
           "A known layout of records instead of json-keys. wudao: title and content, joined by a "
           "line end, as text. The others are conversations (docs/chat-data.md), which become "
           "OpenAI's messages, a line each, in OUTPUT_PREFIX.jsonl: conversations of any shape, or "
           "of the one that is named.")
      .one_of({{"wudao", RecordLayout::kWudao},
               {"conversations", RecordLayout::kConversations},
               {"messages", RecordLayout::kMessages},
               {"sharegpt", RecordLayout::kShareGpt},
               {"alpaca", RecordLayout::kAlpaca},
               {"prompt", RecordLayout::kPrompt}});
  table
      .add(MT_FIELD(preprocess, strict),
           "Stops at the first conversation that cannot be taken instead of counting it.")
      .idle_when(idle_but_for_conversations);
  table
      .add(MT_FIELD(preprocess, clean),
           "Cleans web text by the rules of docs/preprocess.md, and leaves out documents of which "
           "nothing is left.")
      .idle_when(idle_for_conversations);

  table.begin_group("generate", "Generating", {Command::kGenerate, Command::kChat});
  table.add(MT_FIELD(generate, prompt), "The text to continue.").for_commands({Command::kGenerate});
  table.add(MT_FIELD(generate, prompt_file), "File with one prompt a line.")
      .for_commands({Command::kGenerate});
  table
      .add(MT_FIELD(generate, messages),
           "File of conversations (docs/chat-data.md) whose last question is answered.")
      .for_commands({Command::kGenerate})
      .ours();
  table.add(MT_FIELD(generate, system), "What the model is told before the conversation.")
      .for_commands({Command::kChat})
      .ours();
  table.add(MT_FIELD(generate, max_new_tokens), "Stops after so many tokens.")
      .unit("tokens")
      .count();
  table.add(MT_FIELD(generate, temperature), "Divides the logits before sampling; 0: greedy.")
      .at_least(0);
  table
      .add(MT_FIELD(generate, top_p),
           "Samples from the likeliest tokens that together have this probability.")
      .above(0)
      .at_most(1);
  table.add(MT_FIELD(generate, top_k), "Samples from so many likeliest tokens; 0: from all.")
      .unit("tokens")
      .count_or_zero();
  table
      .add(MT_FIELD(generate, repetition_penalty),
           "Divides the logits above 0 of tokens that the text holds, and multiplies those below.")
      .above(0)
      .ours();
  table.add(MT_FIELD(generate, num_samples), "Continuations of each prompt.")
      .for_commands({Command::kGenerate})
      .unit("texts")
      .count()
      .ours();
  table
      .add(MT_FIELD(generate, batch_size),
           "Texts that are continued together; what comes is shown as it comes where it is 1.")
      .for_commands({Command::kGenerate})
      .unit("texts")
      .count()
      .ours();
  table.add(MT_FIELD(generate, greedy), "Always takes the likeliest token.");
}

}  // namespace moetron
