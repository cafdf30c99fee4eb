#!/bin/bash
# package.sh: packs the program in build/cpu (make package builds it) as
#   dist/moetron_VERSION_amd64.deb                      torch's libraries inside, Debian's by dependency
#   dist/moetron-VERSION-py3-none-linux_x86_64.whl      Debian's libraries inside, torch by dependency
set -euo pipefail
cd "$(dirname "$0")/.."
command -v dpkg-shlibdeps >/dev/null || {
  echo "package: dpkg-shlibdeps is missing: apt-get install dpkg-dev" >&2
  exit 2
}
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:.*=//p' build/cpu/CMakeCache.txt)
torch=$(sed -n 's/^MOETRON_TORCH_DIR:.*=//p' build/cpu/CMakeCache.txt)
stage=build/package
root=$stage/root
rm -rf "$stage"
mkdir -p "$stage/debian" dist
DESTDIR=$PWD/$root cmake --install build/cpu --strip --prefix /usr >"$stage/install.log"

python3 scripts/make_wheel.py "$root/usr" "$torch/lib" "$version" dist

for library in "$root"/usr/lib/moetron/*; do
  [ -e "$torch/lib/$(basename "$library")" ] || rm "$library"
done
mv "$root/usr/share/doc/moetron/LICENSE" "$root/usr/share/doc/moetron/copyright"
printf 'Source: moetron\n\nPackage: moetron\nArchitecture: amd64\n' >"$stage/debian/control"
mkdir "$root/DEBIAN"
# libgomp is torch's own; it comes along.
depends=$(cd "$stage" && dpkg-shlibdeps -O -xlibgomp1 --ignore-missing-info -lroot/usr/lib/moetron -eroot/usr/bin/moetron \
  $(printf -- '-e%s ' root/usr/lib/moetron/*) 2>shlibdeps.log | sed -n 's/^shlibs:Depends=//p')
cat >"$root/DEBIAN/control" <<CONTROL
Package: moetron
Version: $version
Architecture: amd64
Maintainer: The Moetron authors <moetron@localhost>
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: $depends
Recommends: gnuplot-nox
Suggests: python3-venv
Section: science
Priority: optional
Description: trains mixture-of-experts language models
 From raw text to a Hugging Face model directory, on CPUs, in any layout of
 data, tensor, expert and pipeline parallelism. "moetron demo" shows it.
CONTROL
dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "dist/moetron_${version}_amd64.deb" >/dev/null
du -h --apparent-size dist/moetron[_-]"$version"*
