#!/bin/bash
# plot_throughput.sh FOLDER [TABLE | RUN...]: draws model TFLOP and tokens per second and device as bars into
# FOLDER/tflops_per_second.png and FOLDER/tokens_per_second.png: of runs (folders with a metrics.jsonl), of a table like
# guide_results.csv beside this script, or, without either, of that one: what the guide publishes of 1f1b and dualpipev
# on 8 nodes of H100. Environment:
#   LABELS  what the runs are called, between blanks (the names of their folders)
#   ENDING  png or svg (png)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
source "$checkout/scripts/find_moetron.sh"
if [ $# -lt 1 ]; then
  echo "usage: $(basename "$0") FOLDER [TABLE | RUN...]" >&2
  exit 2
fi
folder=$1
shift
[ $# -gt 0 ] || set -- "$here/guide_results.csv"
labels=()
[ -z "${LABELS:-}" ] || read -ra labels <<<"--labels $LABELS"
program=$(find_moetron "$checkout")
mkdir -p "$folder"
for metric in tflops_per_second tokens_per_second; do
  "$program" plot "$@" --bars $metric --picture "$folder/$metric.${ENDING:-png}" ${labels[@]+"${labels[@]}"}
done
