#!/bin/bash
# lint.sh WHAT: format (clang-format finds nothing to change), layers (check_layers.py), tidy (clang-tidy on
# the torch-free folders), all (the three), or fix (formats in place).
set -euo pipefail
cd "$(dirname "$0")/.."

# Every C++ and CUDA source that is, or could be, in the repository.
sources() { git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cpp' '*.cu' '*.cuh' | sort -zu; }

case "${1:-}" in
  format) sources | xargs -0 -r clang-format-14 --dry-run -Werror && echo "lint: formatting is right" ;;
  fix) sources | xargs -0 -r clang-format-14 -i ;;
  layers) python3 scripts/check_layers.py --self-test && python3 scripts/check_layers.py ;;
  tidy) python3 scripts/tidy.py ;;
  all) for what in layers format tidy; do "$0" "$what"; done ;;
  *) sed -n '2,3s/^# //p' "$0" >&2; exit 2 ;;
esac
