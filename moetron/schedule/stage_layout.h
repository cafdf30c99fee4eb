// How the layers of a model are divided among the stages of a pipeline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moetron/arch/stage_layers.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

// By stage. `layers` has a number for each chunk of each rank, chunk-major: chunk 0 of ranks 0, 1,
// ..., then chunk 1 of ranks 0, 1, ... (in a V, chunk 1 of rank r is stage 2 * ranks - 1 - r);
// empty: as even as possible, where the last and then the first stage get fewer, for they hold the
// ends. A stage may have no layers. Throws ConfigError naming the option (`option`, for messages)
// if there are too many or too few numbers or their sum is not `num_layers`.
std::vector<StageLayers> stage_layout(const Placement& placement, int64_t num_layers,
                                      const std::vector<int64_t>& layers,
                                      const std::string& option);

// Of those, the ones that `rank` holds, by chunk.
std::vector<StageLayers> stages_of_rank(const std::vector<StageLayers>& stages,
                                        const Placement& placement, int rank);

// Which of all stages holds layer `place` of the model: 0 the embedding, 1 + i decoder layer i,
// then the head.
int stage_of(const std::vector<StageLayers>& stages, int64_t place);

}  // namespace moetron
