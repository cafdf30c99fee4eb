// Packs of conversations as samples of a run.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "moetron/data/conversation_set.h"
#include "moetron/data/packing.h"
#include "moetron/data/token_dataset.h"

namespace moetron {

// Each conversation of a pack is a document: its labels are its own next tokens, its last token has
// none, positions restart. What the pack leaves free is padding, of token 0; a sample may be
// padding alone.
class ConversationDataset final : public TokenDataset {
 public:
  // `lengths`: of all conversations, as they are cut. `references`: null, or what the reference
  // says of each conversation (TokenSample), which stands alone in its pack; it may be filled in
  // later, before samples are asked for.
  ConversationDataset(std::shared_ptr<const ConversationSet> set, std::vector<int32_t> lengths,
                      PackList packs, int64_t sequence_length,
                      std::shared_ptr<const std::vector<double>> references = nullptr);

  int64_t size() const override { return packs_.size(); }
  int64_t sequence_length() const override { return sequence_length_; }
  TokenSample get(int64_t index) const override;

 private:
  void append(int64_t conversation, TokenSample& sample) const;

  std::shared_ptr<const ConversationSet> set_;
  std::vector<int32_t> lengths_;
  PackList packs_;
  int64_t sequence_length_;
  std::shared_ptr<const std::vector<double>> references_;
};

}  // namespace moetron
