# Sourced by scripts that start moetron.

# find_moetron CHECKOUT: the program, which is $MOETRON, what was built in that folder or in the checkout that this file
# lies in, what is installed with its share/moetron/scripts, or what PATH has.
find_moetron() {
  local program own
  own=$(dirname "${BASH_SOURCE[0]}")/..
  for program in "${MOETRON:-}" "$1/build/cuda/moetron" "$1/build/cpu/moetron" \
    "$own/build/cuda/moetron" "$own/build/cpu/moetron" "$own/../../bin/moetron"; do
    if [ -n "$program" ] && [ -x "$program" ]; then
      echo "$program"
      return
    fi
  done
  command -v moetron || {
    echo "$(basename "$0"): no moetron here: build it (make build, or make cuda), or name it in MOETRON" >&2
    return 2
  }
}

# need_variables EXAMPLE NAME...: leaves where one of them is not set, with all their names and an example of use.
need_variables() {
  local example=$1 name missing=
  shift
  for name in "$@"; do
    [ -n "${!name:-}" ] || missing="$missing $name"
  done
  [ -n "$missing" ] || return 0
  echo "$(basename "$0"): set$missing in the environment, for example: $example $0" >&2
  exit 2
}
