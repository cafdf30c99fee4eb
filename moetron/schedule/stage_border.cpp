#include "moetron/schedule/stage_border.h"

#include "moetron/base/error.h"

namespace moetron {

HandedOn handed_on(const ModelConfig& model, Dtype dtype) {
  return {{SlotType::kTokens, model.hidden_size, dtype}};
}

double bytes_of(const HandedOn& slots, double rows) {
  double bytes = 0;
  for (const SlotShape& slot : slots)
    bytes += (slot.dtype == Dtype::kFp32 ? 4 : 2) * rows * static_cast<double>(slot.width);
  return bytes;
}

void check_handed_on(const HandedOn& handed_on, const LayerProgram& program,
                     const std::vector<Slot>& slots) {
  MT_CHECK(slots.size() == handed_on.size(), "a layer with ", slots.size(),
           " slots at a stage's border, where ", handed_on.size(), " cross");
  for (size_t i = 0; i < slots.size(); ++i) {
    MT_CHECK(program.type(slots[i]) == handed_on[i].type, "slot ", i,
             " at a stage's border is of another type than the one that crosses");
    MT_CHECK(handed_on[i].type == SlotType::kTokens, "slot ", i,
             " at a stage's border has a number of rows that the other side does not know");
  }
}

}  // namespace moetron
