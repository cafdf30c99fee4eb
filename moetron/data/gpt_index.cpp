#include "moetron/data/gpt_index.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/base/json.h"
#include "moetron/base/log.h"
#include "moetron/base/parse_number.h"

namespace moetron {
namespace {

// Below this share of its samples, the final epoch is shuffled apart, lest samples of the epochs
// before it appear after it has begun.
constexpr double kSeparateBelow = 0.80;

template <class T>
void fill_epochs(SequenceRange range, std::span<T> out) {
  const auto length = static_cast<size_t>(range.end - range.begin);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<T>(range.begin + i % length);
}

}  // namespace

std::array<SequenceRange, 3> split_sequences(std::string_view split, int64_t num_sequences) {
  std::array<double, 3> weights = {};
  size_t count = 0;
  for (std::string_view rest = split; count <= 3;) {
    const size_t comma = rest.find(',');
    std::string_view part = rest.substr(0, comma);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    const auto weight = parse_number<double>(part);
    MT_CHECK_CONFIG(weight && count < 3 && *weight >= 0 && std::isfinite(*weight), "split (", split,
                    ") must be up to three numbers >= 0 with commas");
    weights[count++] = *weight;
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  const double sum = weights[0] + weights[1] + weights[2];
  MT_CHECK_CONFIG(sum > 0, "split (", split, ") must have a number above 0");
  std::array<SequenceRange, 3> ranges;
  double begin = 0;
  for (size_t i = 0; i < 3; ++i) {
    const double end = begin + weights[i] / sum;
    const auto bound = [&](double share) {
      return static_cast<int64_t>(std::nearbyint(share * static_cast<double>(num_sequences)));
    };
    ranges[i] = {bound(begin), begin < end ? bound(end) : bound(begin)};
    begin = end;
  }
  return ranges;
}

int64_t count_tokens(const IndexedDataset& source, SequenceRange range) {
  int64_t tokens = 0;
  for (int64_t s = range.begin; s < range.end; ++s) tokens += source.sequence_length(s);
  return tokens;
}

GptIndexPlan plan_gpt_index(const IndexedDataset& source, const GptIndexKey& key) {
  const auto [begin, end] = key.range;
  MT_CHECK(0 <= begin && begin <= end && end <= source.num_sequences(), "sequences [", begin, ", ",
           end, ") of ", source.num_sequences());
  MT_CHECK_CONFIG(key.sequence_length > 0, "seq-length (", key.sequence_length,
                  ") must be positive");
  MT_CHECK_CONFIG(end <= std::numeric_limits<int32_t>::max(), source.prefix(), " has ", end,
                  " sequences, more than 32 bits count");
  GptIndexPlan plan;
  const int64_t tokens = plan.tokens_per_epoch = count_tokens(source, key.range);
  MT_CHECK_CONFIG(tokens > 0, source.prefix(), " has no tokens in sequences [", begin, ", ", end,
                  ")");
  const int64_t length = key.sequence_length;
  if (key.num_samples > 0) {
    int64_t wanted = 0;
    const bool fits = !__builtin_mul_overflow(key.num_samples, length, &wanted) &&
                      wanted < std::numeric_limits<int64_t>::max() - tokens - 1;
    MT_CHECK_CONFIG(fits, "samples (", key.num_samples, ") times seq-length (", length,
                    ") is more than 64 bits count");
    plan.num_epochs = (wanted + 1 + tokens - 1) / tokens;
  }
  if (plan.num_epochs > 1) {
    plan.samples_before_final_epoch = ((plan.num_epochs - 1) * tokens - 1) / length;
    const int64_t from_final_epoch = key.num_samples - plan.samples_before_final_epoch;
    const int64_t samples_per_epoch = (tokens - 1) / length;
    plan.separate_final_epoch =
        from_final_epoch <
        static_cast<int64_t>(kSeparateBelow * static_cast<double>(samples_per_epoch));
  }
  plan.num_samples = (plan.num_epochs * tokens - 1) / length;
  MT_CHECK_CONFIG(plan.num_samples > 0, source.prefix(), " has ", tokens, " tokens in sequences [",
                  begin, ", ", end, "), too few for a sample of ", length + 1);
  return plan;
}

GptIndex::GptIndex(const IndexedDataset& source, const GptIndexKey& key)
    : key_(key), plan_(plan_gpt_index(source, key)) {
  build(source);
}

GptIndex::GptIndex(const IndexedDataset& source, const GptIndexKey& key,
                   const std::filesystem::path& folder, bool build_files)
    : key_(key), plan_(plan_gpt_index(source, key)) {
  const Json description = {{"version", 1},
                            {"index", source.fingerprint()},
                            {"begin", key.range.begin},
                            {"end", key.range.end},
                            {"sequence_length", key.sequence_length},
                            {"num_samples", key.num_samples},
                            {"seed", key.seed}};
  const std::string text = description.dump(2) + "\n";
  const std::string hash = hash_hex(std::as_bytes(std::span(text.data(), text.size())));
  const std::filesystem::path stem = folder / hash;
  if (!build_files) {
    map(stem);
    return;
  }
  try {
    map(stem);
  } catch (const InputError& failure) {  // absent or damaged: made anew
    if (is_written(stem))
      log_warning(concat("data-cache-path: ", failure.what(), "; the index is made again"));
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    MT_CHECK_CONFIG(!error, "cannot create data-cache-path ", folder.string(), ": ",
                    error.message());
    build(source);
    write(stem, text);
    map(stem);
  }
}

void GptIndex::build(const IndexedDataset& source) {
  NumpyRandom random(key_.seed);
  build_documents(&random);
  int64_t largest = documents_.size();
  for (int64_t s = 0; s < source.num_sequences(); ++s)
    largest = std::max<int64_t>(largest, source.sequence_length(s));
  if (largest <= std::numeric_limits<int32_t>::max() - 1)
    build_samples<int32_t>(source);
  else
    build_samples<int64_t>(source);
  if (plan_.num_samples < int64_t{std::numeric_limits<uint32_t>::max()} - 1)
    build_shuffle<uint32_t>(&random);
  else
    build_shuffle<int64_t>(&random);
}

void GptIndex::build_documents(NumpyRandom* random) {
  const auto sequences = static_cast<size_t>(key_.range.end - key_.range.begin);
  std::vector<int32_t> documents(sequences * static_cast<size_t>(plan_.num_epochs));
  fill_epochs(key_.range, std::span(documents));
  const size_t first = plan_.separate_final_epoch ? documents.size() - sequences : documents.size();
  random->shuffle(std::span(documents).first(first));
  random->shuffle(std::span(documents).subspan(first));
  documents_ = IndexArray(std::move(documents));
}

// Walks the documents in their order: a sample takes sequence_length + 1 tokens, and the next one
// begins at its last token.
template <class T>
void GptIndex::build_samples(const IndexedDataset& source) {
  std::vector<T> samples;
  samples.reserve(2 * static_cast<size_t>(plan_.num_samples + 1));
  int64_t document = 0, offset = 0;
  samples.push_back(0);
  samples.push_back(0);
  for (int64_t sample = 0; sample < plan_.num_samples; ++sample) {
    int64_t remaining = key_.sequence_length + 1;
    while (true) {
      const int64_t available = source.sequence_length(documents_[document]) - offset;
      if (available >= remaining) break;
      remaining -= available;
      ++document;
      offset = 0;
    }
    offset += remaining - 1;
    samples.push_back(static_cast<T>(document));
    samples.push_back(static_cast<T>(offset));
  }
  samples_ = IndexArray(std::move(samples));
}

template <class T>
void GptIndex::build_shuffle(NumpyRandom* random) {
  std::vector<T> shuffle(static_cast<size_t>(plan_.num_samples));
  std::iota(shuffle.begin(), shuffle.end(), T{0});
  const size_t first = plan_.separate_final_epoch
                           ? static_cast<size_t>(plan_.samples_before_final_epoch)
                           : shuffle.size();
  random->shuffle(std::span(shuffle).first(first));
  random->shuffle(std::span(shuffle).subspan(first));
  shuffle_ = IndexArray(std::move(shuffle));
}

}  // namespace moetron
