#!/bin/bash
# Saves a VM whose device speaks only v2 as a snapshot and starts from it, with a QEMU 7.x and `qemu-img` (Debian: qemu-utils).
. "${0%/*}/strict.sh"
# docs/evacuation.md shows what follows.
dir=$(mktemp -d)
qemu-img create -q -f qcow2 "$dir/disk.qcow2" 64M
vm=(qemu-system-x86_64 -machine pc-i440fx-7.2 -m 64 -nodefaults -display none -monitor stdio
  -drive "if=none,id=disk,file=$dir/disk.qcow2,format=qcow2" -device virtio-blk-pci,drive=disk,addr=3
  -device "vfio-pci,sysfsdev=$dir/0000:90:00.0,addr=4,x-enable-migration=on")

printf '%s\n' 'savevm one' quit |
  npx vfio-shim run --present v1 --device qat,size=16M,seed=7 --sysfs "$dir" --json -- "${vm[@]}" > "$dir/first.log"
printf '%s\n' 'info status' quit |
  npx vfio-shim run --present v1 --device qat,size=16M --sysfs "$dir" --json -- "${vm[@]}" -loadvm one > "$dir/second.log"

grep -ah '^VM status\|^{' "$dir/first.log" "$dir/second.log" | tr -d '\r'
memory() { sed -n 's/^{.*"sha256":"\([0-9a-f]*\)".*/\1/p' "$dir/$1.log"; }
if [ -n "$(memory first)" ] && [ "$(memory first)" = "$(memory second)" ]; then
  echo "The second device has the memory of the first."
else
  echo "The devices differ." >&2
  false
fi
rm -r "$dir"
