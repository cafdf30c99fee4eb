// The weights that a run begins with.
#pragma once

#include <cstdint>

#include "moetron/train/start.h"

namespace moetron {

class Communicator;
class Model;

// Of a run that continues no other: a fresh model, or start.weights; with low-rank updates the
// model that they are for, and fresh updates or start.adapter. Collective over `world`.
void load_first_weights(const RunStart& start, uint64_t seed, Model& model, Communicator& world);

// With low-rank updates: the model that they are for, which no checkpoint of theirs holds.
void load_base(const RunStart& start, Model& model, Communicator& world);

}  // namespace moetron
