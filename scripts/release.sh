#!/bin/bash
# release.sh: makes the Debian package and the wheel, and tries them and an installed tree in clean Debian roots, each
# with a short demo; where buildah is installed, makes the image of Containerfile, too. Not for every push: it takes
# minutes, root, debootstrap and some GB below ROOTS.
#   MIRROR   the Debian mirror (http://deb.debian.org/debian)
#   ROOTS    where the roots are made (build/release)
#   BINDS    folders of this machine that the roots see, too, such as a package index on its disk
#   PIP_...  are handed on to pip
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "release: roots are made by root" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "release: apt-get install debootstrap" >&2; exit 2; }
# In a mount space of its own, so that nothing stays mounted, however it ends.
[ -n "${RELEASE_MOUNTS:-}" ] || RELEASE_MOUNTS=own exec unshare --mount --propagation private "$0" "$@"
mirror=${MIRROR:-http://deb.debian.org/debian}
roots=$(realpath -m "${ROOTS:-build/release}")
log=$roots/log
mkdir -p "$roots"
: >"$log"

# timed WORDS COMMAND...: one line of what took how long; the end of the log where it failed.
timed() {
  local words=$1 began=$SECONDS
  shift
  "$@" >>"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    echo "release: FAILED: $words (the whole output is in $log)" >&2
    exit 1
  }
  printf '%5d s  %s\n' $((SECONDS - began)) "$words"
}

make_base() {
  [ -e "$roots/base/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$roots/base" "$mirror"
}

# make_root NAME: a fresh copy of the base system, ready to enter.
make_root() {
  local root=$roots/$1 folder
  rm -rf "$root"
  cp -a "$roots/base" "$root"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  mount -t proc proc "$root/proc"
  mount -t tmpfs tmpfs "$root/dev/shm"
  for folder in ${BINDS:-}; do
    mkdir -p "$root$folder"
    mount --bind -o ro "$folder" "$root$folder"
  done
}

# inside ROOT COMMANDS: in that root, with pip's settings and nothing else of this environment.
inside() {
  local settings
  mapfile -t settings < <(env | grep '^PIP_' || true)
  chroot "$roots/$1" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive DEMO_STEPS=24 "${settings[@]}" bash -ec "$2"
}

apt_install() { inside "$1" "apt-get update -q && apt-get install -q -y --no-install-recommends $2"; }

# Without Python: text into tokens, two ranks, a sentence.
train_without_python() {
  inside "$1" "mkdir -p /root/try && cd /root/try
    export PATH=$2:\$PATH
    moetron preprocess --input /opt/moetron/share/doc/moetron/docs/options.md --tokenizer bytes --output-prefix data
    sed '/^tokenizer-model/d' /opt/moetron/share/moetron/configs/demo_cpu.toml >bytes.toml
    moetron launch -n 2 pretrain --config bytes.toml --tokenizer bytes --data-path data_text_document --split 1,0,0 --eval-iters 0 --train-iters 3 \
      --lr-warmup-iters 1 --lr-decay-iters 3 --global-batch-size 12 --save run
    moetron generate --load run --tokenizer bytes --prompt 'The option' --max-new-tokens 8"
}

# The demo says what it needs where Python has no tokenizers, and runs where it has.
demo_of_package() {
  inside "$1" "mkdir -p /root/demo && cd /root/demo
    if moetron demo 2>said; then exit 1; fi
    cat said; grep -q 'need Python with the package tokenizers' said"
  inside "$1" "python3 -m venv /opt/demo && /opt/demo/bin/pip install -q tokenizers
    cd /root/demo && MOETRON_PYTHON=/opt/demo/bin/python moetron demo"
}

install_tree() {
  cmake --install build/cpu --strip --prefix "$roots/tree/opt/moetron"
}

# The images that Containerfile begins with are made from the base system here: no registry is asked. As in the roots,
# BINDS are seen and pip has this environment's settings, both in the build alone.
containers() { buildah --root "$roots/containers" --runroot "$roots/containers-run" --storage-driver vfs "$@"; }

make_base_images() {
  local base
  base=$(containers from scratch)
  containers copy -q "$base" "$roots/base" /
  containers commit -q "$base" docker.io/library/debian:12
  containers tag docker.io/library/debian:12 docker.io/library/debian:12-slim
  containers rm "$base"
}

make_image() {
  local volumes=() folder key value
  echo "[global]" >"$roots/pip.conf"
  while IFS== read -r key value; do
    key=${key#PIP_}
    key=${key,,}
    echo "${key//_/-} = $value"
  done < <(env | grep '^PIP_' || true) >>"$roots/pip.conf"
  for folder in ${BINDS:-}; do volumes+=(-v "$folder:$folder:ro"); done
  containers bud --isolation chroot --pull-never -v "$roots/pip.conf:/etc/pip.conf:ro" "${volumes[@]}" \
    -f Containerfile -t moetron .
}

in_image() {
  local made
  made=$(containers from --pull-never moetron)
  containers run --isolation chroot "$made" -- bash -ec "$1"
  containers rm "$made" >/dev/null
}

timed "make package" make package
timed "a Debian root (debootstrap, minbase)" make_base
ls -sh --block-size=MB dist

make_root deb
cp dist/*.deb "$roots/deb/root/"
timed "deb: apt-get install" apt_install deb "/root/$(cd dist && ls -- *.deb)"
inside deb "moetron --version; du -sh --apparent-size /usr/lib/moetron | cut -f1"
timed "deb: apt-get install python3-venv ca-certificates" apt_install deb "python3-venv ca-certificates"
timed "deb: moetron demo, 24 steps" demo_of_package deb

make_root wheel
cp dist/*.whl "$roots/wheel/root/"
timed "wheel: apt-get install python3-venv ca-certificates" apt_install wheel "python3-venv ca-certificates"
timed "wheel: pip install" inside wheel "python3 -m venv /opt/venv && /opt/venv/bin/pip install -q /root/*.whl"
inside wheel "/opt/venv/bin/moetron --version"
timed "wheel: moetron demo, 24 steps" inside wheel "mkdir /root/demo && cd /root/demo && /opt/venv/bin/moetron demo"

make_root tree
timed "make install, into a root" install_tree
inside tree "/opt/moetron/bin/moetron --version; du -sh --apparent-size /opt/moetron | cut -f1"
timed "make install: a training without Python" train_without_python tree /opt/moetron/bin
if command -v buildah >/dev/null; then
  timed "image: its Debian" make_base_images
  timed "image: Containerfile, with make package in it" make_image
  in_image "moetron --version"
  timed "image: moetron demo, 24 steps" in_image "mkdir /root/demo && cd /root/demo && DEMO_STEPS=24 moetron demo"
fi
echo "release: all of dist/ was tried; the whole output is in $log"
