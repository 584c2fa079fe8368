#!/bin/bash
# Saves a VM whose device speaks only v2 into a file and loads it, with a QEMU 7.x, which speaks only v1.
. "${0%/*}/strict.sh"
# README.md shows what follows.
dir=$(mktemp -d)
vm=(qemu-system-x86_64 -m 64 -nodefaults -display none -monitor stdio
  -device "vfio-pci,sysfsdev=$dir/0000:90:00.0,x-enable-migration=on")

# saves the VM into a file, which gets its name when it is complete
{
  echo "migrate -d \"exec:cat > $dir/part && mv $dir/part $dir/vm.state\""
  until [ -e "$dir/vm.state" ] || grep -qs Error "$dir/source.log"; do echo info migrate; sleep 0.2; done
  echo quit
} | npx vfio-shim run --device qat,size=16M,seed=7 --sysfs "$dir" --json -- "${vm[@]}" > "$dir/source.log"

# loads it, into a device that holds zeros, and waits until the VM runs
[ -s "$dir/vm.state" ] && {
  until grep -qs 'VM status: running' "$dir/destination.log"; do echo info status; sleep 0.2; done
  echo quit
} | npx vfio-shim run --device qat,size=16M --sysfs "$dir" --json -- "${vm[@]}" \
  -incoming "exec:cat $dir/vm.state" > "$dir/destination.log"

grep -ah '^{' "$dir/source.log" "$dir/destination.log"
memory() { sed -n 's/^{.*"sha256":"\([0-9a-f]*\)".*/\1/p' "$dir/$1.log"; }
if [ -n "$(memory source)" ] && [ "$(memory source)" = "$(memory destination)" ]; then
  echo "The second device has the memory of the first."
else
  echo "The devices differ." >&2
  false
fi
rm -r "$dir"
