#include "moetron/metrics/timeline.h"

#include "moetron/base/error.h"

namespace moetron {

std::string short_name(BarKind kind) {
  switch (kind) {
    case BarKind::kForward:
      return "F";
    case BarKind::kBackwardInput:
      return "I";
    case BarKind::kBackwardWeight:
      return "W";
    case BarKind::kBackward:
      return "B";
    case BarKind::kReduce:
      return "R";
    case BarKind::kCommunication:
      return "communication";
    case BarKind::kWait:
      return "wait";
  }
  throw InternalError("a bar without a kind");
}

bool has_chunks(BarKind kind) {
  return kind != BarKind::kWait && kind != BarKind::kCommunication;
}

int colour_of(BarKind kind, int chunk) {
  const bool is_dark = chunk % 2 == 0;
  switch (kind) {
    case BarKind::kForward:
      return is_dark ? 0x2a6fb3 : 0x9ecbee;
    case BarKind::kBackwardInput:
      return is_dark ? 0xe0a100 : 0xf8dd8a;
    case BarKind::kBackwardWeight:
      return is_dark ? 0x15806a : 0x94d4c2;
    case BarKind::kBackward:
      return is_dark ? 0xc4452a : 0xf3ab93;
    case BarKind::kReduce:
      return is_dark ? 0x6f4fa0 : 0xc6b3e0;
    case BarKind::kCommunication:
      return 0x8c8c8c;
    case BarKind::kWait:
      return 0xe4e4e4;
  }
  throw InternalError("a bar without a kind");
}

}  // namespace moetron
