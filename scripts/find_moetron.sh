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

# need_variables EXAMPLE NAME...: leaves where one of them is not set, with all their names and an example of use: what
# of EXAMPLE ("A=1 B=2") is missing, or all of it where the first NAME is.
need_variables() {
  local example=$1 first=$2 name word missing= shown=
  shift
  for name in "$@"; do
    [ -n "${!name:-}" ] || missing="$missing $name"
  done
  [ -n "$missing" ] || return 0
  for word in $example; do
    case "$missing " in
      *" $first "* | *" ${word%%=*} "*) shown="$shown$word " ;;
    esac
  done
  echo "$(basename "$0"): set$missing in the environment, for example: $shown$0" >&2
  exit 2
}

# need_number NAME LEAST [MOST]: leaves where the variable is no such whole number.
need_number() {
  local value=${!1}
  [[ $value =~ ^(0|[1-9][0-9]{0,17})$ ]] && [ "$value" -ge "$2" ] && [ "$value" -le "${3:-$value}" ] && return
  echo "$(basename "$0"): $1 ($value) must be a whole number from $2 ${3:+to }${3:-on}" >&2
  exit 2
}

# need_counts NAME...
need_counts() {
  local name
  for name in "$@"; do need_number "$name" 1; done
}
