// Fine-tuning on conversations.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_without_preferences(const Options& options) {
  return options.sft.objective == Objective::kDpo ? "" : "of objective dpo alone";
}

// Both answers of a pair have a sequence of their own.
bool packs(const Options& options) {
  return options.sft.packing && options.sft.objective != Objective::kDpo;
}

std::string idle_without_packing(const Options& options) {
  return packs(options) ? "" : "without packing nothing is packed";
}

std::string idle_without_answers(const Options& options) {
  return options.sft.sample_answers > 0 ? "" : "sample-answers (0) asks for none";
}

std::string idle_with_packing(const Options& options) {
  return packs(options) ? "packed sequences are seq-length long" : "";
}

void declare_objective(OptionTable& table) {
  table
      .add(MT_FIELD(sft, objective),
           "What is trained: sft, to write the answers; dpo, to prefer the chosen answer of a pair "
           "to the rejected one, compared with the model that load names.")
      .one_of({{"sft", Objective::kSft}, {"dpo", Objective::kDpo}})
      .deciding_training()
      .ours();
  table
      .add(MT_FIELD(sft, dpo_beta),
           "How much a difference in log-probability from the reference counts: the higher, the "
           "closer the model stays to it.")
      .above(0)
      .deciding_training()
      .idle_when(idle_without_preferences)
      .ours();
  table
      .add(MT_FIELD(sft, dpo_label_smoothing),
           "Share of the pairs that are taken to be the wrong way round (conservative DPO).")
      .at_least(0)
      .below(0.5)
      .deciding_training()
      .idle_when(idle_without_preferences)
      .ours();
}

void declare_data(OptionTable& table) {
  table
      .add(MT_FIELD(sft, epochs), "How often a run sees each conversation, instead of train-iters.")
      .unit("epochs")
      .count()
      .ours();
  table
      .add(MT_FIELD(sft, packing),
           "Puts several conversations into a sequence, which do not see each other; without it "
           "each has a sequence of its own, filled up with padding.")
      .deciding_training()
      .ours();
  table
      .add(MT_FIELD(sft, packing_window),
           "Conversations that are packed together, as the shuffle brings them; more of them fill "
           "sequences better, fewer keep more of the shuffle.")
      .unit("conversations")
      .count()
      .deciding_training()
      .idle_when(idle_without_packing)
      .ours();
  table
      .add(MT_FIELD(sft, max_padding_length),
           "Length that sequences are padded to without packing, instead of seq-length.")
      .of_guide()
      .unit("tokens")
      .count_or_zero()
      .deciding_training()
      .idle_when(idle_with_packing);
  table
      .add(MT_FIELD(sft, truncate),
           "Cuts conversations that are longer than a sequence, instead of leaving them out.")
      .deciding_training()
      .ours();
  table
      .add(MT_FIELD(sft, eval_fraction),
           "Share of the conversations that is held out of training, to evaluate on; which ones "
           "follows from the seed.")
      .at_least(0)
      .below(1)
      .deciding_training()
      .ours();
  table
      .add(MT_FIELD(sft, strict),
           "Refuses data with a record that cannot be used, instead of leaving the record out.")
      .ours();
  table
      .add(MT_FIELD(sft, sample_answers),
           "Prompts that the trained model answers when a run is done; 0: none.")
      .count_or_zero()
      .ours();
  table
      .add(MT_FIELD(sft, sample_interval),
           "Lets the model answer them every so many steps as well, into metrics.jsonl and "
           "TensorBoard; 0: never.")
      .unit("steps")
      .count_or_zero()
      .idle_when(idle_without_answers)
      .ours();
}

void declare_templates(OptionTable& table) {
  table
      .add(MT_FIELD(sft, chat_template),
           "File with the chat template, or chatml; without it the model's or tokenizer's own.")
      .for_commands({Command::kSft, Command::kGenerate, Command::kChat})
      .deciding_training()
      .ours();
  table.add(MT_FIELD(sft, last_turn_only), "Trains only the last answer of each conversation.")
      .deciding_training()
      .ours();
  table
      .add(MT_FIELD(sft, thinking),
           "What the template's enable_thinking says; template: what the template does without it; "
           "off drops reasoning from answers, too. Of generate and chat, template is as the model "
           "was "
           "fine-tuned.")
      .for_commands({Command::kSft, Command::kGenerate, Command::kChat})
      .one_of({{"template", ThinkingChoice::kTemplate},
               {"on", ThinkingChoice::kOn},
               {"off", ThinkingChoice::kOff}})
      .deciding_training()
      .ours();
  table
      .add(MT_FIELD(sft, allow_special_tokens_in_text),
           "Takes what looks like a control token in the text of a message for one.")
      .deciding_training()
      .ours();
}

}  // namespace

void declare_sft(OptionTable& table) {
  table.begin_group("sft", "Fine-tuning", {Command::kSft});
  declare_objective(table);
  declare_data(table);
  declare_templates(table);
}

}  // namespace moetron
