#include "moetron/train/conversations.h"

#include <algorithm>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/data/conversation_dataset.h"
#include "moetron/data/pack_order.h"
#include "moetron/metrics/progress_bar.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/train/reference.h"

namespace moetron {
namespace {

constexpr int64_t kShownTokens = 600;  // of a sample
constexpr size_t kNamedLines = 5;
constexpr int64_t kMostQuestions = 100;

PackSettings pack_settings(const SftChoices& choices) {
  const ConversationsSpec spec = choices.conversations();
  return {.sequence_length = choices.seq_length(),
          .packs = spec.packing,
          .num_sides = spec.pairs ? 2 : 1,
          .window = spec.window,
          .seed = static_cast<uint64_t>(choices.seed())};
}

SplitSettings split_settings(const SftChoices& choices) {
  const ConversationsSpec spec = choices.conversations();
  return {.seed = static_cast<uint64_t>(choices.seed()),
          .eval_fraction = spec.eval_fraction,
          .sequence_length = choices.seq_length(),
          .truncates = spec.truncate};
}

// The same packs at every evaluation.
PackList held_out_packs(const ConversationSplit& split, const PackSettings& settings) {
  return epoch_packs(split.held_out, split.lengths, settings, 0);
}

std::string percent(double share) {
  return concat(static_cast<double>(static_cast<int64_t>(1000 * share + 0.5)) / 10, " %");
}

// "131 packs an epoch, 97.2 % full, 2.8 % padding, the longest of 512 tokens"
std::string describe_packs(const PackList& packs, int64_t num_packs, const SftChoices& choices,
                           const ConversationSplit& split) {
  int64_t tokens = 0, longest = 0;
  for (int64_t i = 0; i < num_packs; ++i) {
    for (const int64_t one : packs[i]) {
      const int64_t length = split.lengths[static_cast<size_t>(one)];
      tokens += length;
      longest = std::max(longest, length);
    }
  }
  const double fill =
      static_cast<double>(tokens) / static_cast<double>(num_packs * choices.seq_length());
  return concat(num_packs, choices.conversations().packing ? " packs" : " sequences", " an epoch, ",
                percent(fill), " full, ", percent(1 - fill), " padding; the longest ",
                choices.conversations().pairs ? "answer" : "conversation", " has ", longest,
                " tokens");
}

}  // namespace

Conversations::Conversations(std::shared_ptr<const ConversationSet> set,
                             std::vector<DescribedFile> files, std::filesystem::path caches,
                             SftChoices choices, std::shared_ptr<const Tokenizer> tokenizer)
    : set_(std::move(set)),
      files_(std::move(files)),
      caches_(std::move(caches)),
      choices_(std::move(choices)),
      tokenizer_(std::move(tokenizer)),
      split_(split_conversations(*set_, split_settings(choices_))) {
  MT_CHECK_INPUT(!choices_.conversations().strict || split_.too_long.empty(),
                 "strict: ", places(split_.too_long), ": longer than ", choices_.length_option(),
                 " (", choices_.seq_length(), ")");
  MT_CHECK_CONFIG(!split_.training.empty(), "data-path: none of ", set_->num_records(), noun(),
                  " is left to train on: ", split_.too_long.size(), " are longer than ",
                  choices_.length_option(), " (", choices_.seq_length(), "), ",
                  split_.held_out.size(), " are held out (eval-fraction ",
                  choices_.conversations().eval_fraction, ")");
}

void Conversations::introduce(std::vector<SampleQuestion>* questions_out) const {
  log_info(choices_.text());
  if (questions_out != nullptr) *questions_out = questions(kMostQuestions);
}

// "chats.jsonl line 3, chats.jsonl line 9"
std::string Conversations::places(const std::vector<int64_t>& conversations) const {
  std::string text;
  for (size_t i = 0; i < std::min(kNamedLines, conversations.size()); ++i) {
    const int64_t one = conversations[i];
    const auto file = static_cast<size_t>(set_->place(one).file);
    text += concat(i == 0 ? "" : ", ", files_[file].place, " line ", set_->line(one));
  }
  return text + (conversations.size() > kNamedLines ? ", ..." : "");
}

// "; 2 left out, longer than 512 tokens: ...; 1 cut to as many: ..."
std::string Conversations::left_out() const {
  std::string text;
  if (!split_.too_long.empty()) {
    text = concat("; ", split_.too_long.size(), " left out, longer than ", choices_.seq_length(),
                  choices_.conversations().truncate ? " tokens with nothing to train on before: "
                                                    : " tokens: ",
                  places(split_.too_long));
  }
  if (!split_.cut.empty()) {
    text += concat("; ", split_.cut.size(), " cut to ", choices_.seq_length(),
                   " tokens: ", places(split_.cut));
  }
  return text;
}

TrainingData Conversations::datasets(const RunSpec& spec, const SampleCounts& counts,
                                     int64_t first_sample) const {
  const int64_t batch = spec.batch.global_batch_size, length = spec.batch.seq_length;
  const PackSettings settings = pack_settings(choices_);
  PackOrder order(*set_, split_, settings);
  order.extend_to_packs(std::max<int64_t>(1, counts.train.back()));
  const BatchCut cut{batch, spec.batch.micro_batch_size, spec.sizes.dp};
  // All answers of pairs take as long: they are padded to one length, and must stay side by side.
  const auto balanced = [&](PackList packs, int64_t first) {
    return has_pairs() ? packs : balance_packs(packs, first, split_.lengths, cut);
  };
  TrainingData data;
  if (has_pairs()) {
    std::string key;
    for (const DescribedFile& file : files_) key += file.content + "\n";
    data.references =
        std::make_shared<References>(set_, split_.lengths, length, std::move(key), caches_);
  }
  const auto make = [&](PackList packs) {
    if (data.references != nullptr) data.references->need(packs);
    return std::make_unique<ConversationDataset>(
        set_, split_.lengths, std::move(packs), length,
        data.references != nullptr ? data.references->values() : nullptr);
  };
  data.train = make(balanced(order.packs().first(counts.train.back()), first_sample % batch));
  data.description =
      concat(split_.training.size(), noun(), " of ", files_.front().place,
             files_.size() > 1 ? concat(" and ", files_.size() - 1, " more") : "", " in ",
             describe_packs(order.packs(), order.epoch_end(0), choices_, split_), left_out());
  if (spec.steps.eval > 0 && !split_.held_out.empty()) {
    const PackList held = held_out_packs(split_, settings);
    data.validation = make(balanced(held.first(spec.steps.eval * batch), 0));
    data.description += concat("; ", split_.held_out.size(), noun(), " to validate on");
  }
  data.sample = concat("sample    a ", has_pairs() ? "pair" : "conversation",
                       ", and what is trained of it marked:\n") +
                marked_sample(terminal_width(STDOUT_FILENO) > 0);
  return data;
}

std::string Conversations::marked_sample(bool in_colour) const {
  const int64_t one = split_.training.front();
  if (!has_pairs()) return marked(one, in_colour);
  return concat("chosen    ", marked(one, in_colour), "\nrejected  ", marked(one + 1, in_colour));
}

std::string Conversations::marked(int64_t one, bool in_colour) const {
  const auto length = static_cast<size_t>(
      std::min<int64_t>(split_.lengths[static_cast<size_t>(one)], kShownTokens));
  std::vector<int32_t> tokens(length);
  std::vector<float> weights(length);
  set_->get(one, tokens, weights);
  std::string text;
  for (size_t begin = 0; begin < length;) {
    const bool is_trained = weights[begin] > 0;
    size_t end = begin;
    while (end < length && (weights[end] > 0) == is_trained) ++end;
    const std::string part = tokenizer_->decode(std::span(tokens).subspan(begin, end - begin));
    const char* open = in_colour ? "\x1b[32m" : "[[";
    const char* close = in_colour ? "\x1b[0m" : "]]";
    text += is_trained ? concat(open, part, close) : part;
    begin = end;
  }
  const bool is_cut = static_cast<int64_t>(length) < split_.lengths[static_cast<size_t>(one)];
  return text + (is_cut ? " ..." : "");
}

std::vector<SampleQuestion> Conversations::questions(int64_t count) const {
  const auto& from = split_.held_out.empty() ? split_.training : split_.held_out;
  std::vector<SampleQuestion> questions;
  for (const int64_t one : from) {
    if (static_cast<int64_t>(questions.size()) == count) break;
    const auto length = static_cast<size_t>(split_.lengths[static_cast<size_t>(one)]);
    std::vector<int32_t> tokens(length);
    std::vector<float> weights(length);
    set_->get(one, tokens, weights);
    const auto begin = static_cast<size_t>(set_->first_target(one));
    size_t end = begin;
    while (end < length && weights[end] > 0) ++end;
    const auto at = [&](size_t place) { return tokens.begin() + static_cast<ptrdiff_t>(place); };
    questions.push_back({{tokens.begin(), at(begin)}, {at(begin), at(end)}});
  }
  return questions;
}

}  // namespace moetron
