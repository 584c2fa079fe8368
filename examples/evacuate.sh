#!/bin/bash
# Migrates a VM live from a QEMU 7.2, whose device speaks only v2, to a QEMU 10.0, which needs no bridge for it.
. "${0%/*}/strict.sh"
# docs/evacuation.md shows what follows.
dir=$(mktemp -d)
QEMU10=${QEMU10:-$(node scripts/qemu.mjs trixie)}
vm=(-machine pc-i440fx-7.2 -m 64 -nodefaults -display none -monitor stdio)
device="vfio-pci,sysfsdev=$dir/0000:90:00.0,addr=4"

# destination: QEMU 10.0, whose driver speaks the protocol that it knows. It ends when the VM runs there, or will not
{
  until grep -qs 'VM status: running' "$dir/destination.log" || [ -e "$dir/failed" ]; do echo info status; sleep 0.2; done
  echo quit
} | npx vfio-shim run --present v2 --device qat,size=16M --sysfs "$dir" --json -- \
  "$QEMU10" "${vm[@]}" -device "$device,enable-migration=on" -incoming "unix:$dir/migration" > "$dir/destination.log" &
until [ -S "$dir/migration" ] || ! kill -0 $! 2> /dev/null; do sleep 0.1; done

# source: QEMU 7.2, bridged. `migrate` returns when the destination has the VM
printf '%s\n' 'migrate_set_capability return-path on' "migrate unix:$dir/migration" 'info migrate' quit |
  npx vfio-shim run --present v1 --device qat,size=16M,seed=7 --sysfs "$dir" --json -- \
  qemu-system-x86_64 "${vm[@]}" -device "$device,x-enable-migration=on" > "$dir/source.log"
grep -qa 'Migration status: completed' "$dir/source.log" || touch "$dir/failed"
wait $!

grep -a '^Migration status\|^total time\|^downtime:\|^{' "$dir/source.log" | tr -d '\r'
grep -a '^{' "$dir/destination.log"
memory() { sed -n 's/^{.*"sha256":"\([0-9a-f]*\)".*/\1/p' "$dir/$1.log"; }
if [ -n "$(memory source)" ] && [ "$(memory source)" = "$(memory destination)" ]; then
  echo "The destination's device has the memory of the source's."
else
  echo "The devices differ." >&2
  false
fi
rm -r "$dir"
