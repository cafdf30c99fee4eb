// What fine-tuning chooses of a run's options where the user does not say, and why.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "moetron/run/conversations_spec.h"

namespace moetron {

// What is known of the conversations when the length of sequences is chosen.
struct ConversationFacts {
  int64_t num_conversations = 0;
  int64_t longest = 0;                   // tokens
  std::optional<int64_t> max_positions;  // of the model; empty: unknown
};

// And when the steps are: sequences, of which a pack is one.
struct PackFacts {
  int64_t first_epoch = 0;
  int64_t all_epochs = 0;  // of epochs()
  int64_t held_out = 0;
  int64_t world_size = 1;  // ranks
};

// Goes through three stages, in order: made, see_conversations(), see_packs(); the options are
// complete behind the last. What the user gave is never changed.
class SftChoices {
 public:
  // Throws ConfigError for what contradicts itself.
  explicit SftChoices(const Options& given);

  void see_conversations(const ConversationFacts& facts);
  ConversationsSpec conversations() const;  // complete behind see_conversations()
  int64_t seq_length() const;
  // The option that says it.
  const char* length_option() const;
  int64_t epochs() const;  // 0: train-iters or train-samples say how long the run is
  int64_t seed() const;

  void see_packs(PackFacts facts);
  const Options& options() const { return *options_; }
  // A line for each choice: "seq-length 512: the longest conversation has 391 tokens".
  const std::vector<std::string>& reasons() const { return reasons_; }
  std::string text() const;  // all of them, under a heading

 private:
  bool is_given(const std::string& name) const;
  bool pads_to_its_own_length() const;  // max-padding-length, instead of seq-length
  template <class T>
  void choose(const char* name, T& field, const T& value, const std::string& why);
  void choose_batch(const PackFacts& facts);
  void choose_steps(const PackFacts& facts);

  std::shared_ptr<Options> options_;
  std::vector<std::string> reasons_;
};

}  // namespace moetron
