// For tests: readers of tiny models.
#pragma once

#include <functional>

#include "moetron/arch/mesh_layout.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/generate/reader.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {

// Of a model that is whole, on one rank.
inline void with_reader(Model& model, const std::function<void(TextReader&)>& work) {
  run_ranks(1, [&](Communicator& world) {
    Mesh mesh(world, {});
    const PipelineSettings pipeline{.request = {}, .stages = model.stages()};
    TextReader reader(model, mesh, pipeline);
    work(reader);
  });
}

// A fresh model of `seed`, divided among threads; `work` on each.
inline void with_reader(const ModelConfig& config, const ParallelSizes& sizes, uint64_t seed,
                        const std::function<void(TextReader&, int rank)>& work) {
  run_ranks(static_cast<int>(sizes.world), [&](Communicator& world) {
    Mesh mesh(world, sizes, head_copies(sizes, config));
    PipelineSettings pipeline;
    pipeline.request.num_ranks = static_cast<int>(sizes.pp);
    pipeline.stages = stage_layout(placement_of(pipeline.request), config.num_layers, {}, "");
    ModelSettings settings;
    settings.mesh = &mesh;
    settings.stages =
        stages_of_rank(pipeline.stages, placement_of(pipeline.request), mesh.pipeline().rank());
    Model model(config, settings);
    model.initialize(seed);
    TextReader reader(model, mesh, pipeline);
    work(reader, world.rank());
  });
}

}  // namespace moetron
