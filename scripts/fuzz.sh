#!/bin/bash
# fuzz.sh [SECONDS [NAME ...]]: builds the libFuzzer programs of fuzz/ with clang and gives each (or those named)
# inputs for so long, 20 seconds if nothing is said. Inputs that reached new code stay in build/fuzz/corpus; one that
# crashes, hangs or takes a GiB is kept in build/fuzz/found, and the script fails.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
shift || true
export CC=clang-14 CXX=clang++-14
scripts/build.sh fuzz "$(nproc)" --target fuzz
mkdir -p build/fuzz/found
python3 fuzz/make_seeds.py build/fuzz/seeds

# fuzz_one SECONDS PROGRAM
fuzz_one() {
  local name=${2##*/fuzz_}
  mkdir -p "build/fuzz/corpus/$name"
  if "$2" -max_total_time="$1" -max_len=4096 -timeout=60 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix=build/fuzz/found/ "build/fuzz/corpus/$name" "build/fuzz/seeds/$name" >"build/fuzz/$name.log" 2>&1; then
    echo "fuzz: $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$name.log") inputs"
  else
    tail -n 40 "build/fuzz/$name.log"
    echo "fuzz: FAILED: $name"
    return 1
  fi
}
export -f fuzz_one

wanted=()
for program in build/fuzz/fuzz/fuzz_*; do
  [ -x "$program" ] && [ -f "$program" ] || continue
  [ $# = 0 ] || [[ " $* " == *" ${program##*/fuzz_} "* ]] || continue
  wanted+=("$program")
done
[ ${#wanted[@]} -gt 0 ] || { echo "fuzz: no program of fuzz/ is named: $*" >&2; exit 2; }
# One to a core.
printf '%s\0' "${wanted[@]}" | xargs -0 -P "$(nproc)" -I '{}' bash -c 'fuzz_one "$@"' _ "$seconds" '{}'
