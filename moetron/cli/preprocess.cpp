// moetron preprocess: text to .bin/.idx, conversations to messages.
#include "moetron/data/preprocess.h"

#include <cstdio>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/chat/write_messages.h"
#include "moetron/cli/commands.h"
#include "moetron/run/resolve.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/train/start.h"

namespace moetron {
namespace {

// Redraws one line on a terminal; silent elsewhere.
void show_progress(uint64_t done, uint64_t total) {
  if (::isatty(STDERR_FILENO) == 0 || total == 0) return;
  std::fprintf(stderr, "\r%5.1f %% of %.1f MB",
               100.0 * static_cast<double>(done) / static_cast<double>(total),
               static_cast<double>(total) / 1e6);
  if (done == total) std::fputs("\r\033[K", stderr);
}

std::optional<TextKind> text_kind(TextFormat format) {
  switch (format) {
    case TextFormat::kAuto:
      return std::nullopt;
    case TextFormat::kJsonl:
      return TextKind::kLines;
    case TextFormat::kJson:
      return TextKind::kDocument;
    case TextFormat::kText:
      return TextKind::kPlain;
  }
  throw InternalError("unknown text format");
}

// What stands in front of a text in transformers, and here only where it is asked for.
void say_beginning(const Tokenizer& tokenizer, bool is_written) {
  if (tokenizer.prefix().empty()) return;
  const std::string begin = tokenizer.decode(tokenizer.prefix());
  std::printf(is_written ? "every document begins with the tokenizer's %s\n"
                         : "the tokenizer's %s in front of a text is not written; --prepend-bos "
                           "writes it\n",
              begin.c_str());
}

void say_left_out(const std::vector<std::filesystem::path>& files) {
  constexpr size_t kShown = 10;
  for (size_t i = 0; i < files.size() && i < kShown; ++i)
    std::printf("left out %s, which is no data\n", files[i].c_str());
  if (files.size() > kShown) std::printf("left out %zu more files\n", files.size() - kShown);
}

std::optional<ConversationShape> shape_of(RecordLayout layout) {
  switch (layout) {
    case RecordLayout::kConversations:
      return std::nullopt;
    case RecordLayout::kMessages:
      return ConversationShape::kMessages;
    case RecordLayout::kShareGpt:
      return ConversationShape::kShareGpt;
    case RecordLayout::kAlpaca:
      return ConversationShape::kAlpaca;
    case RecordLayout::kPrompt:
      return ConversationShape::kPrompt;
    case RecordLayout::kWudao:
      break;
  }
  throw InternalError("a layout of records that are no conversations");
}

int write_conversations(const PreprocessOptions& options) {
  const std::filesystem::path output = messages_path(options.output_prefix);
  const ConversationCounts counts =
      write_messages({options.input.begin(), options.input.end()}, output, shape_of(*options.from),
                     options.strict, show_progress);
  std::printf("%s\nwrote %s\n", counts.summary().c_str(), output.c_str());
  return kExitDone;
}

}  // namespace

int run_preprocess(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  say_notices(parsed);
  validate(options, Command::kPreprocess, /*world_size=*/1);
  const std::optional<RecordLayout> from = options.preprocess.from;
  if (from && *from != RecordLayout::kWudao) return write_conversations(options.preprocess);
  const auto tokenizer = open_tokenizer(resolve_start(options).tokenizer);
  PreprocessSettings settings;
  settings.inputs.assign(options.preprocess.input.begin(), options.preprocess.input.end());
  settings.output_prefix = options.preprocess.output_prefix;
  settings.keys = options.preprocess.json_keys;
  if (from == RecordLayout::kWudao) {
    settings.keys = {"title", "content"};
    settings.joined_key = "text";
  }
  settings.clean = options.preprocess.clean;
  settings.format = text_kind(options.preprocess.format);
  settings.prepend_bos = options.preprocess.prepend_bos;
  settings.append_eod = options.preprocess.append_eod;
  settings.skip_bad_lines = options.preprocess.skip_bad_lines;
  settings.num_workers = static_cast<int>(options.preprocess.workers);
  settings.progress = show_progress;
  say_beginning(*tokenizer, settings.prepend_bos);
  const PreprocessReport report = preprocess(settings, *tokenizer);

  std::printf("%lld documents, %lld tokens from %.1f MB of text in %.1f s (%.1f MB/s)\n",
              static_cast<long long>(report.documents), static_cast<long long>(report.tokens),
              static_cast<double>(report.bytes) / 1e6, report.seconds, report.megabytes_per_second);
  if (report.bad_lines > 0) {
    std::printf("%lld bad lines were skipped\n", static_cast<long long>(report.bad_lines));
  }
  if (report.cleaned_away > 0) {
    std::printf("%lld documents had no text but what cleaning removes, and are left out\n",
                static_cast<long long>(report.cleaned_away));
  }
  if (report.empty_documents > 0) {
    std::printf("%lld documents are empty\n", static_cast<long long>(report.empty_documents));
  }
  say_left_out(report.left_out);
  for (const std::string& prefix : report.outputs) {
    std::printf("wrote %s.bin and %s.idx\n", prefix.c_str(), prefix.c_str());
  }
  return kExitDone;
}

}  // namespace moetron
