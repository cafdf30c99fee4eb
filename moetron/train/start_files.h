// What a run reads, told by its content: what ranks must agree on, and what a resumed run compares
// with the run before.
#pragma once

#include "moetron/base/json.h"
#include "moetron/run/run_spec.h"
#include "moetron/train/start.h"

namespace moetron {

class Conversations;

// {"data-path": {"place": "data/pages_text_document", "content": "120 documents, ..."}, ...}: an
// entry for each prefix of --data-path, the tokenizer and the folder of the model, where there is
// one. Of .bin files and weights a sample is read, of all others every byte. Collective: an
// InputError of one rank, for a file that cannot be read, is thrown by all.
// `conversations`: what the run reads instead of token files, or null; of pairs, "reference" is the
// model that they are compared with (train/reference.h).
Json describe_files(const RunStart& start, const StartSpec& spec, const DataSpec& data,
                    const Conversations* conversations, Communicator& world);

}  // namespace moetron
