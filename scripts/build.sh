#!/bin/bash
# build.sh PRESET JOBS [--target TARGET] [CMAKE_ARGUMENT...]: configures and builds a preset, all of it or one target,
# and shows only progress and errors.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1 jobs=$2
shift 2
target=all
if [ "${1:-}" = --target ]; then
  target=$2
  shift 2
fi
log=build/configure-$preset.log
mkdir -p build
if ! cmake --preset "$preset" "$@" >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "build: configuring failed; the whole output is in $log" >&2
  exit 1
fi
cmake --build --preset "$preset" -j "$jobs" --target "$target"
