#include "moetron/moe/dispatchers.h"

#include "moetron/base/error.h"
#include "moetron/moe/all_to_all_dispatcher.h"
#include "moetron/moe/gather_dispatcher.h"

namespace moetron {

std::unique_ptr<Dispatcher> make_dispatcher(const DispatcherSettings& settings) {
  const ExpertLayout& layout = settings.layout;
  MT_CHECK(layout.num_experts % layout.ep == 0, layout.num_experts, " experts on ", layout.ep,
           " ranks");
  if (layout.size() == 1) return make_local_dispatcher(settings);
  MT_CHECK(layout.group != nullptr && layout.group->size() == layout.size(),
           "an expert group that is not EP x TPE = ", layout.size(), " ranks");
  switch (settings.kind) {
    case TokenDispatcher::kAllGather:
      return make_gather_dispatcher(settings, /*fused=*/false);
    case TokenDispatcher::kAllGatherFused:
    case TokenDispatcher::kOverlapAllGatherFused:
      return make_gather_dispatcher(settings, /*fused=*/true);
    case TokenDispatcher::kAllToAll:
    case TokenDispatcher::kOverlapAllToAll:
      return make_all_to_all_dispatcher(settings, /*deduplicates=*/false);
    case TokenDispatcher::kDeepep:
    case TokenDispatcher::kOverlapDeepep:
      return make_all_to_all_dispatcher(settings, /*deduplicates=*/true);
  }
  throw InternalError("a token dispatcher without an algorithm");
}

}  // namespace moetron
