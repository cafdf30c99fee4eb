#include "moetron/data/preprocess.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <set>
#include <span>

#include "moetron/base/error.h"
#include "moetron/data/clean_text.h"
#include "moetron/data/ordered_workers.h"
#include "moetron/data/text_input.h"
#include "moetron/formats/indexed_dataset.h"

namespace moetron {
namespace {

// Batches under way for each thread: enough that none waits for the writer.
constexpr size_t kBatchesPerWorker = 4;

// The datasets' names, one for each text of a document.
std::vector<std::string> output_keys(const PreprocessSettings& settings) {
  return settings.joined_key.empty() ? settings.keys : std::vector{settings.joined_key};
}

struct KeyTokens {
  std::vector<int32_t> tokens;  // documents back to back
  std::vector<size_t> lengths;  // [documents]
};

struct EncodedBatch {
  std::vector<KeyTokens> keys;
  int64_t empty_documents = 0;
  int64_t bad_lines = 0;
  int64_t cleaned_away = 0;
  uint64_t bytes = 0;
};

// Encodes the documents of one batch.
class BatchEncoder : public DocumentSink {
 public:
  BatchEncoder(const PreprocessSettings& settings, const TextEncoder& encoder)
      : settings_(settings), encoder_(encoder) {
    batch_.keys.resize(output_keys(settings).size());
  }

  std::string add(std::span<const std::string_view> given) override {
    std::vector<std::string> made;
    const std::vector<std::string_view> texts = prepared(given, made);
    const auto is_empty = [](std::string_view text) { return text.empty(); };
    if (settings_.clean && std::all_of(texts.begin(), texts.end(), is_empty) &&
        !std::all_of(given.begin(), given.end(), is_empty)) {
      ++batch_.cleaned_away;
      return "";
    }
    std::vector<std::vector<int32_t>> documents;  // [keys]: of all of them, or of none
    try {
      for (const std::string_view text : texts) documents.push_back(encoder_.encode(text));
    } catch (const InputError& error) {
      return error.what();
    }
    bool has_empty = false;
    for (size_t k = 0; k < texts.size(); ++k) {
      has_empty |= documents[k].empty();
      append(documents[k], batch_.keys[k]);
    }
    batch_.empty_documents += has_empty;
    return "";
  }

  void refuse(const std::string& place, const std::string& reason) override {
    MT_CHECK_INPUT(settings_.skip_bad_lines, place, ": ", reason,
                   " (skip-bad-lines leaves such documents out)");
    ++batch_.bad_lines;
  }

  EncodedBatch take() { return std::move(batch_); }

 private:
  // Joined and cleaned as the settings say; `made` holds what is new.
  std::vector<std::string_view> prepared(std::span<const std::string_view> given,
                                         std::vector<std::string>& made) const {
    std::vector<std::string_view> texts(given.begin(), given.end());
    if (!settings_.joined_key.empty()) {
      std::string& joined = made.emplace_back();
      for (const std::string_view text : given) {
        if (!joined.empty() && !text.empty()) joined += '\n';
        joined += text;
      }
      texts = {joined};
    }
    if (!settings_.clean) return texts;
    std::vector<std::string> cleaned;
    cleaned.reserve(texts.size());
    for (const std::string_view text : texts) cleaned.push_back(clean_text(text));
    made = std::move(cleaned);
    return std::vector<std::string_view>(made.begin(), made.end());
  }

  void append(std::vector<int32_t>& tokens, KeyTokens& key) const {
    for (const int32_t token : tokens)
      MT_CHECK(token >= 0 && token < encoder_.vocab_size, "the tokenizer gave ", token,
               " of a vocabulary of ", encoder_.vocab_size);
    const size_t before = key.tokens.size();
    // A text may say its beginning itself.
    const auto& begin = encoder_.begin;
    const bool has_begin =
        tokens.size() >= begin.size() && std::equal(begin.begin(), begin.end(), tokens.begin());
    if (settings_.prepend_bos && !tokens.empty() && !has_begin)
      key.tokens.insert(key.tokens.end(), begin.begin(), begin.end());
    key.tokens.insert(key.tokens.end(), tokens.begin(), tokens.end());
    if (settings_.append_eod && !tokens.empty()) key.tokens.push_back(*encoder_.eos_id);
    key.lengths.push_back(key.tokens.size() - before);
  }

  const PreprocessSettings& settings_;
  const TextEncoder& encoder_;
  EncodedBatch batch_;
};

// Writes finished batches in order and keeps the report.
class Output {
 public:
  Output(const PreprocessSettings& settings, int64_t vocab_size, uint64_t bytes_total)
      : settings_(settings), bytes_total_(bytes_total) {
    const auto folder = std::filesystem::path(settings.output_prefix).parent_path();
    std::error_code error;
    if (!folder.empty()) std::filesystem::create_directories(folder, error);
    MT_CHECK_CONFIG(!error, "output-prefix: cannot make the folder ", folder.string(), ": ",
                    error.message());
    for (const std::string& key : output_keys(settings)) {
      report_.outputs.push_back(settings.output_prefix + "_" + key + "_document");
      writers_.push_back(std::make_unique<IndexedDatasetWriter>(report_.outputs.back(),
                                                                token_type_for_vocab(vocab_size)));
    }
  }

  void write(const EncodedBatch& batch) {
    for (size_t k = 0; k < writers_.size(); ++k) write_key(batch.keys[k], writers_[k].get());
    report_.documents += static_cast<int64_t>(batch.keys[0].lengths.size());
    report_.empty_documents += batch.empty_documents;
    report_.bad_lines += batch.bad_lines;
    report_.cleaned_away += batch.cleaned_away;
    report_.bytes += static_cast<int64_t>(batch.bytes);
    if (settings_.progress) settings_.progress(static_cast<uint64_t>(report_.bytes), bytes_total_);
  }

  PreprocessReport commit() {
    MT_CHECK_INPUT(report_.documents > 0, "the inputs hold no documents (", report_.bad_lines,
                   " bad lines, ", report_.cleaned_away, " cleaned away, ", report_.bytes,
                   " bytes)");
    report_.bytes = static_cast<int64_t>(bytes_total_);  // with byte order marks and the like
    if (settings_.progress) settings_.progress(bytes_total_, bytes_total_);
    for (const auto& writer : writers_) {
      report_.tokens += writer->num_tokens();
      writer->commit();
    }
    return report_;
  }

 private:
  static void write_key(const KeyTokens& key, IndexedDatasetWriter* writer) {
    std::span<const int32_t> rest = key.tokens;
    for (const size_t length : key.lengths) {
      if (length > 0) writer->add_sequence(rest.first(length));
      writer->end_document();
      rest = rest.subspan(length);
    }
  }

  const PreprocessSettings& settings_;
  uint64_t bytes_total_;
  std::vector<std::unique_ptr<IndexedDatasetWriter>> writers_;
  PreprocessReport report_;
};

void check_settings(const PreprocessSettings& settings, const TextEncoder& encoder) {
  MT_CHECK_CONFIG(!settings.inputs.empty(), "input names no file");
  MT_CHECK_CONFIG(!settings.output_prefix.empty(), "output-prefix is empty");
  MT_CHECK_CONFIG(settings.num_workers > 0, "workers (", settings.num_workers,
                  ") must be positive");
  const std::set<std::string> keys(settings.keys.begin(), settings.keys.end());
  MT_CHECK_CONFIG(!keys.empty() && keys.size() == settings.keys.size(),
                  "json-keys must name one key or more, each once");
  MT_CHECK_CONFIG(!settings.prepend_bos || !encoder.begin.empty(),
                  "prepend-bos needs a tokenizer that puts a token in front of a text or has a "
                  "bos_token");
  MT_CHECK_CONFIG(!settings.append_eod || encoder.eos_id,
                  "append-eod needs a tokenizer with an end-of-document token");
}

}  // namespace

PreprocessReport preprocess(const PreprocessSettings& settings, const TextEncoder& encoder) {
  check_settings(settings, encoder);
  const auto begin = std::chrono::steady_clock::now();
  const InputList inputs = list_inputs(settings.inputs, settings.format);
  Output output(settings, encoder.vocab_size, inputs.bytes);
  OrderedWorkers<EncodedBatch> workers(
      settings.num_workers, kBatchesPerWorker * static_cast<size_t>(settings.num_workers));
  for (const std::filesystem::path& file : inputs.files) {
    cut_into_batches(file, settings.keys, settings.format, [&](TextBatch batch) {
      if (workers.full()) output.write(workers.take());
      workers.add([&settings, &encoder, batch = std::move(batch)] {
        BatchEncoder sink(settings, encoder);
        batch.read(&sink);
        EncodedBatch encoded = sink.take();
        encoded.bytes = batch.bytes;
        return encoded;
      });
    });
  }
  while (!workers.empty()) output.write(workers.take());
  PreprocessReport report = output.commit();
  report.left_out = inputs.left_out;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  report.seconds = elapsed.count();
  report.megabytes_per_second = static_cast<double>(report.bytes) / 1e6 / report.seconds;
  return report;
}

}  // namespace moetron
