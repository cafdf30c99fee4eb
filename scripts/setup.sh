#!/bin/bash
# Installs what Moetron needs: Debian packages (scripts/debian-packages.txt) and a Python environment in
# .venv (scripts/requirements.txt). Does nothing when all is there; safe to run again at any time. --with-clang adds
# the compiler that scripts/fuzz.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
LOG=build/setup.log

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 2; }

# run WORDS COMMAND...: runs a command quietly, and shows the end of its output when it fails.
run() {
  local words=$1
  shift
  say "$words"
  if ! "$@" >>"$LOG" 2>&1; then
    tail -n 20 "$LOG" >&2
    die "this failed: $* (the whole output is in $LOG)"
  fi
}

install_packages() {
  mapfile -t wanted < <(grep -v '^#' scripts/debian-packages.txt)
  [ "${1:-}" != --with-clang ] || wanted+=(clang-14 libclang-rt-14-dev)
  local missing
  missing=$(comm -23 <(printf '%s\n' "${wanted[@]}" | sort) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null |
      sed -n 's/^installed //p' | sort -u))
  [ -n "$missing" ] || return 0
  mapfile -t missing <<<"$missing"
  if [ "$(id -u)" != 0 ]; then
    die "please install these packages first: sudo apt-get install ${missing[*]}"
  fi
  run "reading Debian's package lists" apt-get update -q
  run "installing ${#missing[@]} Debian packages: ${missing[*]}" \
    apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# Leaves pip to find torch's CPU build on its own index; an index that cannot be reached is only a warning.
install_torch() {
  local torch
  torch=$(grep '^torch==' scripts/requirements.txt)
  .venv/bin/pip install -q --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu "$torch+cpu" ||
    .venv/bin/pip install -q "$torch"
}

install_python() {
  local stamp=.venv/moetron-setup key
  key=$(sha256sum scripts/requirements.txt)
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && .venv/bin/python -c '' 2>/dev/null; then
    return 0
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "python3 is $(python3 -V | cut -d' ' -f2), and Moetron's tools need 3.11 or newer"
  if ! .venv/bin/python -c '' 2>/dev/null; then
    run "making a Python environment in .venv" python3 -m venv --clear .venv
  fi
  run "installing torch (about 200 MB) into .venv" install_torch
  run "installing transformers, tokenizers and tensorboard into .venv" \
    .venv/bin/pip install -q -r scripts/requirements.txt
  echo "$key" >"$stamp"
}

command -v dpkg-query >/dev/null ||
  die "this is not a Debian system; install what scripts/debian-packages.txt lists, and .venv by hand"
mkdir -p build
: >"$LOG"
install_packages "$@"
install_python
# For one test alone: nobody's demo fails without it.
scripts/setup_core08.sh >>"$LOG" 2>&1 || say "Megatron-core 0.8 cannot be had: the test of its files is left out"
