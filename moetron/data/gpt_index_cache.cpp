// How the indices of a GPT dataset lie on disk, and the checks of what is read from there.
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/hash.h"
#include "moetron/base/json.h"
#include "moetron/base/path.h"
#include "moetron/data/gpt_index.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

fs::path with_suffix(const fs::path& stem, const char* suffix) {
  fs::path path = stem;
  return path += suffix;
}

constexpr char kDocuments[] = "-document_index.npy";
constexpr char kSamples[] = "-sample_index.npy";
constexpr char kShuffle[] = "-shuffle_index.npy";
constexpr char kDescription[] = "-description.json";
constexpr char kHashes[] = "xxh3_128";  // its object of file name endings and hashes

std::string hash_of(const fs::path& path) {
  return hash_hex(MappedFile(path).bytes());
}

// A damaged value within its range would change what is learned, and nobody would see it.
void check_hashes(const fs::path& stem) {
  const fs::path path = with_suffix(stem, kDescription);
  const Json description = read_json(path);
  MT_CHECK_INPUT(description.is_object() && description.value(kHashes, Json()).is_object(),
                 path.string(), " has no hashes");
  for (const char* suffix : {kDocuments, kSamples, kShuffle}) {
    const fs::path file = with_suffix(stem, suffix);
    const Json expected = description[kHashes].value(suffix, Json());
    const std::string found = hash_of(file);
    MT_CHECK_INPUT(expected == found, file.string(), " is damaged: XXH3-128 ", expected.dump(),
                   " expected, \"", found, "\" found");
  }
}

}  // namespace

// The description comes last: with it, the cache is complete.
void GptIndex::write(const fs::path& stem, const std::string& description) const {
  documents_.write(with_suffix(stem, kDocuments), {documents_.size()});
  samples_.write(with_suffix(stem, kSamples), {plan_.num_samples + 1, 2});
  shuffle_.write(with_suffix(stem, kShuffle), {plan_.num_samples});
  Json complete = parse_json(description, "description");
  for (const char* suffix : {kDocuments, kSamples, kShuffle})
    complete[kHashes][suffix] = hash_of(with_suffix(stem, suffix));
  write_json(with_suffix(stem, kDescription), complete);
}

bool GptIndex::is_written(const fs::path& stem) {
  return path_exists(with_suffix(stem, kDescription));
}

void GptIndex::map(const fs::path& stem) {
  const int64_t sequences = key_.range.end - key_.range.begin;
  check_hashes(stem);
  documents_ = IndexArray(NpyFile(with_suffix(stem, kDocuments)));
  samples_ = IndexArray(NpyFile(with_suffix(stem, kSamples)));
  shuffle_ = IndexArray(NpyFile(with_suffix(stem, kShuffle)));
  const bool sound = documents_.has_shape({plan_.num_epochs * sequences}) &&
                     samples_.has_shape({plan_.num_samples + 1, 2}) &&
                     shuffle_.has_shape({plan_.num_samples});
  MT_CHECK_INPUT(sound, stem.string(), "-*.npy are not the indices of ", plan_.num_samples,
                 " samples; delete them");
}

int64_t GptIndex::num_documents() const {
  return documents_.size();
}

int64_t GptIndex::shuffled(int64_t index) const {
  const int64_t sample = shuffle_[index];
  MT_CHECK_INPUT(sample >= 0 && sample < plan_.num_samples, "damaged dataset cache: shuffle index ",
                 index, " is ", sample, " of ", plan_.num_samples, " samples");
  return sample;
}

GptIndex::Position GptIndex::sample_start(int64_t sample) const {
  const Position position = {samples_[2 * sample], samples_[2 * sample + 1]};
  MT_CHECK_INPUT(
      position.document >= 0 && position.document < num_documents() && position.offset >= 0,
      "damaged dataset cache: sample ", sample, " begins in document ", position.document, " of ",
      num_documents(), " at ", position.offset);
  return position;
}

int64_t GptIndex::sequence(int64_t document) const {
  const int64_t sequence = documents_[document];
  MT_CHECK_INPUT(sequence >= key_.range.begin && sequence < key_.range.end,
                 "damaged dataset cache: document ", document, " is sequence ", sequence);
  return sequence;
}

}  // namespace moetron
