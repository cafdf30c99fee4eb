#!/bin/bash
# plot_loss.sh RUN_1F1B RUN_DUALPIPEV PICTURE: draws the losses of two runs on each other, and below them their
# difference, into PICTURE (.png or .svg), and prints how far they are apart. Runs are whatever moetron compare-loss
# reads: folders, metrics.jsonl, logs of Megatron, tables. Environment:
#   LABELS  what the two are called, between a blank ("1f1b dualpipev")
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$checkout/scripts/find_moetron.sh"
if [ $# -ne 3 ]; then
  echo "usage: $(basename "$0") RUN_1F1B RUN_DUALPIPEV PICTURE" >&2
  exit 2
fi
read -ra labels <<<"${LABELS:-1f1b dualpipev}"
program=$(find_moetron "$checkout")
# Runs that differ by more than the tolerance are drawn all the same.
"$program" compare-loss "$1" "$2" --picture "$3" --labels "${labels[@]}" || code=$?
[ "${code:-0}" -le 1 ] || exit "$code"
