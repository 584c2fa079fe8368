#!/usr/bin/env bash
# Runs one job of the lab under user-mode Linux: the same mtty of a Linux 6.12 built from Debian's linux-source, on this machine's
# own processor instead of an emulated one, for what the emulation would distort: times. Needs gcc, make, flex, bison, bc and
# apt-get; the kernel takes about five minutes to build and is kept in the cache.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
job=${1:-speed}
[ -e "$root/lab/jobs/$job.ts" ] || { echo "lab: no job $job" >&2; exit 2; }
missing=()
for tool in gcc make flex bison bc xz apt-get dpkg-deb; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "lab: skipped, user-mode Linux cannot be built without ${missing[*]}" >&2
  [ -z "${CI:-}" ]
  exit
fi

cache=${VFIO_SHIM_CACHE:-$HOME/.cache/vfio-shim}/uml
mkdir -p "$cache"
# here, as a directory for temporary files may be small, and what is in it not executable
work=$(mktemp -d "$cache/build-XXXXXX")
trap 'rm -rf "$work"' EXIT

# user-mode Linux saves a process's extended registers whole, and has no room for those of newer processors
cat >"$work/xstate.c" <<'C'
#include <cpuid.h>
#include <stdio.h>
int main(void) { unsigned a, b, c, d; __cpuid_count(0xd, 0, a, b, c, d); printf("%u\n", b); return 0; }
C
gcc -o "$work/xstate" "$work/xstate.c"
xstate=$("$work/xstate")
linux=$cache/linux-$(sha256sum "$root/lab/uml/config" "$0" | sha256sum | cut -c1-16)-$xstate

if [ ! -x "$linux" ]; then
  echo "lab: building user-mode Linux"
  (cd "$work" && apt-get download -qq linux-source-6.12 2>/dev/null) || {
    echo "lab: skipped, Debian's linux-source-6.12 cannot be had" >&2
    [ -z "${CI:-}" ]
    exit
  }
  dpkg-deb --fsys-tarfile "$work"/linux-source-6.12_*.deb | tar -xO ./usr/src/linux-source-6.12.tar.xz | xz -dc | tar x -C "$work"
  cd "$work/linux-source-6.12"
  sed -i "s/DEFINE_LONGS(HOST_FP_SIZE, 2696)/DEFINE_LONGS(HOST_FP_SIZE, $xstate)/" arch/x86/um/user-offsets.c
  # the container of VFIO works on any architecture with an MMU
  sed -i 's/select VFIO_IOMMU_TYPE1 if MMU && .*/select VFIO_IOMMU_TYPE1 if MMU/' drivers/vfio/Kconfig
  make -s ARCH=um defconfig
  scripts/kconfig/merge_config.sh -m .config "$root/lab/uml/config" >/dev/null
  make -s ARCH=um olddefconfig
  make -s ARCH=um -j"$(nproc)" linux 2>"$work/log" || { tail -20 "$work/log" >&2; exit 1; }
  cp linux "$linux"
fi

cd "$root"
node scripts/setup.mjs
"$linux" rootfstype=hostfs rootflags=/ ro quiet mem=8G con=null con0=fd:0,fd:1 \
  init="$root/lab/uml/init.sh" "lab_root=$root" "lab_job=$job" "lab_node=$(command -v node)" "lab_home=$HOME" </dev/null |
  node_modules/.bin/tsx lab/uml/report.ts
