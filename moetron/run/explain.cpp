#include "moetron/run/explain.h"

#include <algorithm>
#include <filesystem>

#include "moetron/base/mistakes.h"
#include "moetron/config/applied_settings.h"
#include "moetron/config/argument_reader.h"
#include "moetron/run/config_from_options.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

constexpr size_t kMostShown = 200;  // characters of an option with its values

std::string shortened(const std::string& text) {
  return text.size() > kMostShown ? text.substr(0, kMostShown) + "..." : text;
}

// What may hold any text, so that an open value is as good as another.
bool takes_text(const OptionSpec& spec) {
  return spec.kind == ValueKind::kText || spec.kind == ValueKind::kTexts;
}

// What Megatron's --use-checkpoint-args takes from the checkpoint, whatever the options say.
bool is_in_checkpoint_args(const OptionSpec& spec) {
  if (spec.name == "norm-epsilon") return false;
  return spec.group == "model" || spec.group == "moe" || spec.name == "attention-dropout" ||
         spec.name == "hidden-dropout";
}

// An option that the command line gave, or Megatron would take by itself.
struct Given {
  Setting setting;
  std::string text;
  std::string condition;
  std::vector<std::string> words;
  bool is_open = false;                      // its value is not known, and has to be
  bool is_default = false;                   // Megatron's
  std::string note = {};                     // empty: what its effect says
  std::vector<std::string> open_words = {};  // of its words
};

std::vector<std::string> written_words(const Setting& setting) {
  std::vector<std::string> words{setting.shown};
  const bool is_bare = setting.is_implied ||
                       (setting.spec->kind == ValueKind::kFlag && setting.values[0].text == "true");
  for (const Scalar& value : setting.values)
    if (!is_bare) words.push_back(value.text);
  return words;
}

class Explainer {
 public:
  Explainer(const TrainingCommand& command, std::optional<int64_t> num_ranks,
            const ModelFinder& find_model)
      : command_(command), find_model_(find_model) {
    explanation_.num_ranks = command.num_ranks ? command.num_ranks : num_ranks;
    if (explanation_.num_ranks) return;
    if (command.open_ranks.empty()) explanation_.num_ranks = 1;
    for (const std::string& name : command.open_ranks) add_open(name);
  }

  Explanation explain() {
    read_arguments();
    if (!command_.is_ours()) add_defaults();
    add_family();
    sort_options();
    if (!has_open_value_) look_for_contradictions();
    write_command();
    return std::move(explanation_);
  }

 private:
  void read_arguments() {
    std::vector<std::string> texts;
    for (const ShellWord& word : command_.arguments) texts.push_back(word.text);
    ArgumentReader reader(Command::kPretrain, std::move(texts));
    while (!reader.at_end()) {
      const ReadArgument read = reader.next();
      if (read.setting) {
        add_given(read, reader.words());
      } else {
        add_stray(read);
      }
    }
  }

  void add_given(const ReadArgument& read, const std::vector<std::string>& words) {
    Given given{.setting = *read.setting, .text = {}, .condition = {}, .words = {}};
    const auto begin = words.begin();
    given.words.assign(begin + static_cast<std::ptrdiff_t>(read.begin),
                       begin + static_cast<std::ptrdiff_t>(read.end));
    for (const std::string& word : given.words)
      given.text += (given.text.empty() ? "" : " ") + word;
    given.text = shortened(given.text);
    given.condition = command_.arguments[read.begin].condition;
    for (size_t i = read.begin; i < read.end; ++i) {
      if (command_.arguments[i].open.empty()) continue;
      given.open_words.push_back(command_.arguments[i].text);
      if (takes_text(*given.setting.spec)) continue;
      given.is_open = true;
      add_open(command_.arguments[i]);
    }
    if (!read.mistake.empty()) explanation_.contradictions.push_back(read.mistake);
    std::erase_if(given_, [&](const Given& old) { return old.setting.spec == given.setting.spec; });
    given_.push_back(std::move(given));
  }

  // A word that is no option's, or an option that nobody knows.
  void add_stray(const ReadArgument& read) {
    const ShellWord& word = command_.arguments[read.begin];
    if (!word.open.empty()) {
      add_open(word);
    } else if (read.mistake.empty()) {
      explanation_.contradictions.push_back(concat("unexpected argument \"", read.shown, "\""));
    } else {
      std::string note = option_table().suggestion(read.shown.substr(2), "--");
      if (!note.empty()) note = note.substr(2);
      const auto is_told = [&](const ExplainedOption& old) { return old.text == read.shown; };
      if (std::none_of(explanation_.unknown.begin(), explanation_.unknown.end(), is_told))
        explanation_.unknown.push_back({read.shown, note, word.condition});
    }
  }

  void add_open(const ShellWord& word) {
    for (const std::string& name : word.open) add_open(name);
  }

  void add_open(const std::string& name) {
    has_open_value_ = true;
    std::vector<std::string>& open = explanation_.open;
    if (std::find(open.begin(), open.end(), name) == open.end()) open.push_back(name);
  }

  bool is_given(const OptionSpec& spec) const {
    return std::any_of(given_.begin(), given_.end(),
                       [&](const Given& given) { return given.setting.spec == &spec; });
  }

  // As the words say, whatever fits together.
  Options raw_options() const {
    Options options;
    for (const Given& given : given_) {
      if (given.is_open) continue;
      try {
        try_setting(given.setting, options);
      } catch (const ConfigError&) {  // told when the options are sorted
      }
    }
    return options;
  }

  void add_default(const OptionSpec& spec, const std::string& value) {
    Given given{.setting = {&spec, {{ScalarType::kUntyped, value}}, "--" + spec.name},
                .text = concat("--", spec.name, " ", value),
                .condition = {},
                .words = {},
                .is_default = true};
    given.words = written_words(given.setting);
    given_.push_back(std::move(given));
  }

  void add_defaults() {
    const bool args_tell = is_given(*option_table().find("use-checkpoint-args")->spec);
    for (const OptionSpec& spec : option_table().options()) {
      const MegatronDefault& megatron = spec.megatron;
      if ((megatron.value.empty() && megatron.same_as.empty()) || is_given(spec)) continue;
      if (args_tell && is_in_checkpoint_args(spec)) continue;
      const Options options = raw_options();
      if (megatron.when && !megatron.when(options)) continue;
      std::string value = megatron.value;
      if (!megatron.same_as.empty()) {
        const Json same = option_value(*option_table().find(megatron.same_as)->spec, options);
        if (same.is_null()) continue;
        value = same.dump();
      }
      add_default(spec, value);
    }
    add_batch();
  }

  // A micro-batch for each data-parallel rank.
  void add_batch() {
    const OptionSpec& spec = *option_table().find("global-batch-size")->spec;
    const Options options = raw_options();
    const ParallelOptions& parallel = options.parallel;
    const int64_t model_ranks =
        parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size;
    const int64_t micro_batch = options.training.micro_batch_size;
    if (is_given(spec) || has_open_value_ || micro_batch < 1 || model_ranks < 1) return;
    const int64_t num_ranks = *explanation_.num_ranks;
    if (num_ranks % model_ranks != 0) return;
    add_default(spec, std::to_string(micro_batch * (num_ranks / model_ranks)));
  }

  // Megatron has a program for each, and needs no word for it.
  void add_family() {
    const OptionSpec& spec = *option_table().find("model-family")->spec;
    const Options options = raw_options();
    if (is_given(spec) || !folder_of(options.checkpoint.load).empty()) return;
    ModelFamily family = ModelFamily::kLlama;
    Mistakes ignored;  // they are told when the model is resolved
    if (!ignored.collect([&] { family = guessed_family(options); })) return;
    for (const auto& [program, named] : {std::pair("deepseek", ModelFamily::kDeepseek),
                                         {"qwen", ModelFamily::kQwen},
                                         {"llama", ModelFamily::kLlama}})
      if (command_.program.find(program) != std::string::npos) family = named;
    for (const Choice& choice : spec.choices)
      if (choice.meaning == Enumerator(family)) {
        add_default(spec, choice.name);
        given_.back().note = "what the other options describe";
      }
  }

  void sort_options() {
    std::vector<Setting> settings;
    for (const Given& given : given_)
      if (!given.is_open) settings.push_back(given.setting);
    applied_ = apply_settings(Command::kPretrain, std::move(settings), options_);
    if (has_open_value_) forget_what_is_open();
    const std::string missing = missing_options(Command::kPretrain, names_of(applied_));
    auto applied = applied_.begin();
    for (const Given& given : given_) {
      if (given.is_open) {
        explanation_.same.push_back({given.text, "", given.condition});
        add_words(given);
      } else {
        sort_option(given, *applied++);
      }
    }
    if (!missing.empty() && !has_open_value_) explanation_.contradictions.push_back(missing);
  }

  // What an option does beside one whose value is open is said only where it hangs on no number:
  // it is the same for the default and for another count.
  void forget_what_is_open() {
    constexpr const char* kOtherCount = "2";
    bool has_other_kinds = false;
    std::vector<Setting> settings;
    for (const Given& given : given_) {
      Setting setting = given.setting;
      if (given.is_open) {
        setting.values = {{ScalarType::kUntyped, kOtherCount}};
        has_other_kinds |= setting.spec->kind != ValueKind::kInteger;
      }
      settings.push_back(std::move(setting));
    }
    Options other;
    const auto others = apply_settings(Command::kPretrain, std::move(settings), other);
    for (AppliedSetting& applied : applied_) {
      const OptionSpec& spec = *applied.setting.spec;
      const auto same = std::find_if(others.begin(), others.end(),
                                     [&](const auto& one) { return one.setting.spec == &spec; });
      const bool hangs = has_other_kinds || same->standing != applied.standing;
      if (hangs && spec.idle && applied.standing == Standing::kNoEffect)
        applied.standing = Standing::kWorks;
      if (has_other_kinds || same->remark != applied.remark) applied.remark.clear();
    }
  }

  void sort_option(const Given& given, const AppliedSetting& applied) {
    const OptionSpec& spec = *given.setting.spec;
    ExplainedOption option{given.text, applied.why, given.condition};
    if (!applied.mistake.empty()) {
      explanation_.contradictions.push_back(applied.mistake);
    } else if (applied.standing == Standing::kNotYet) {
      if (given.is_default)
        option = {"without --" + spec.name,
                  concat(applied.why, ": Megatron's default is ", given.setting.values[0].text),
                  ""};
      explanation_.missing.push_back(option);
    } else if (differs(spec)) {
      option.note = spec.difference;
      explanation_.other.push_back(option);
      if (applied.standing == Standing::kWorks) add_words(given);
    } else if (applied.standing == Standing::kNoEffect) {
      if (!given.is_default) explanation_.idle.push_back(option);
    } else {
      option.note = given.note.empty() ? applied.remark : given.note;
      (given.is_default ? explanation_.added : explanation_.same).push_back(option);
      add_words(given);
    }
  }

  bool differs(const OptionSpec& spec) const {
    return !command_.is_ours() && !spec.difference.empty() &&
           (!spec.differs_when || spec.differs_when(options_));
  }

  void add_words(const Given& given) {
    const bool is_own_save =
        given.setting.spec->name == "load" && options_.checkpoint.load == options_.checkpoint.save;
    if (is_own_save) return;  // what --save holds is continued, and a first start has nothing there
    if (!given.setting.spec->field && !given.is_open) return;  // it is so in any case
    words_.insert(words_.end(), given.words.begin(), given.words.end());
    explanation_.open_words.insert(explanation_.open_words.end(), given.open_words.begin(),
                                   given.open_words.end());
  }

  // A folder that is there; empty otherwise: the options alone tell then.
  static std::string folder_of(const std::string& folder) {
    std::error_code ignored;
    return std::filesystem::is_directory(folder, ignored) ? folder : "";
  }

  void look_for_contradictions() {
    Options options = options_;
    options.checkpoint.load = folder_of(options.checkpoint.load);
    Mistakes mistakes;
    mistakes.collect([&] { validate(options, Command::kPretrain, *explanation_.num_ranks); });
    const std::string lines = mistakes.joined("\n");
    for (size_t at = 0; at < lines.size();) {
      const size_t end = std::min(lines.find('\n', at), lines.size());
      const std::string line = lines.substr(at, end - at);
      if (!is_told(line)) explanation_.contradictions.push_back(with_origin(line));
      at = end + 1;
    }
    if (explanation_.contradictions.empty()) resolve(std::move(options));
  }

  // Whether it is of an option that is missing, or has no value that can be: that was said.
  bool is_told(const std::string& sentence) const {
    const auto found = option_table().find(sentence.substr(0, sentence.find(' ')));
    if (!found || !sentence.starts_with(found->spec->name + " (")) return false;
    const auto of_it = [&](const AppliedSetting& one) { return one.setting.spec == found->spec; };
    const auto applied = std::find_if(applied_.begin(), applied_.end(), of_it);
    return applied == applied_.end() ? found->spec->is_required_by(Command::kPretrain)
                                     : !applied->mistake.empty();
  }

  // A contradiction, and which of its options nobody wrote.
  std::string with_origin(const std::string& sentence) const {
    std::string added;
    for (const Given& given : given_)
      if (given.is_default && sentence.find(given.setting.spec->name + " (") != std::string::npos)
        added += concat(added.empty() ? "" : ", ", given.text);
    return added.empty() ? sentence
                         : concat(sentence, " (", added, ": not yours, what Megatron would take)");
  }

  // What is known to start, as far as options tell, becomes a run.
  void resolve(Options options) {
    options.checkpoint.save.clear();
    RunFacts facts{.world_size = *explanation_.num_ranks};
    if (!options.checkpoint.load.empty()) find_model_(options, facts);
    facts.tokenizer = assumed_vocabulary(options, facts);
    if (facts.tokenizer) explanation_.assumed_vocabulary = facts.tokenizer->size;
    Mistakes mistakes;
    mistakes.collect([&] { explanation_.run = resolve_run(options, facts); });
    explanation_.facts = std::move(facts);
    explanation_.run_options = std::move(options);
    if (mistakes.count() > 0) explanation_.contradictions.push_back(mistakes.joined("; "));
  }

  void write_command() {
    std::vector<std::string>& words = explanation_.command;
    const std::vector<ShellWord>& launcher = command_.launcher;
    const bool has_ranks = explanation_.num_ranks.value_or(1) > 1;
    if (launcher.empty() ? has_ranks : command_.starts_by_torchrun()) {
      words = {"torchrun", "--no-python"};
      if (launcher.empty()) {
        words.insert(words.end(), {"--nproc_per_node", std::to_string(*explanation_.num_ranks)});
      }
    } else if (!launcher.empty()) {
      words.push_back(launcher[0].text);
    }
    for (size_t i = 1; i < launcher.size(); ++i) {
      const std::string& word = launcher[i].text;
      if (word == "--no-python" || word == "--no_python") continue;
      words.push_back(word);
      if (!launcher[i].open.empty()) explanation_.open_words.push_back(word);
    }
    words.insert(words.end(), {"moetron", "pretrain"});
    words.insert(words.end(), words_.begin(), words_.end());
  }

  const TrainingCommand& command_;
  const ModelFinder& find_model_;
  Explanation explanation_;
  std::vector<Given> given_;
  std::vector<AppliedSetting> applied_;
  Options options_;
  std::vector<std::string> words_;  // of our command, behind its name
  bool has_open_value_ = false;
};

}  // namespace

Explanation explain(const TrainingCommand& command, std::optional<int64_t> num_ranks,
                    const ModelFinder& find_model) {
  return Explainer(command, num_ranks, find_model).explain();
}

}  // namespace moetron
