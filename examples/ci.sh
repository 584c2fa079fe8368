#!/bin/bash
# For a CI job, under `vfio-shim run --device qat --`: a VM of whatever QEMU there is has the device, is saved, and goes on from what was saved.
. "${0%/*}/strict.sh"
# docs/ci.md shows what follows.
dir=$(mktemp -d)
qemu=${QEMU:-qemu-system-x86_64}
read -r first _ <<< "$VFIO_SHIM_DEVICES" # /dev/vfio/9000=0000:90:00.0
device="vfio-pci,sysfsdev=$VFIO_SHIM_SYSFS/${first#*=}"
migration=$("$qemu" -device vfio-pci,help | grep -o '\(x-\)\?enable-migration' | head -n 1) # with x- before QEMU 8
vm=("$qemu" -m 64 -nodefaults -display none -monitor stdio -device "$device,$migration=on")

# saves the VM into a file, which gets its name when it is complete
{
  echo "migrate_set_parameter downtime-limit 10000" # what a device sends while the VM is stopped is no matter here
  echo "migrate -d \"exec:cat > $dir/part && mv $dir/part $dir/vm.state\""
  until [ -e "$dir/vm.state" ] || grep -qs Error "$dir/saved.log"; do echo info migrate; sleep 0.2; done
  echo quit
} | "${vm[@]}" > "$dir/saved.log"

# loads it, and waits until the VM runs
[ -s "$dir/vm.state" ] && {
  until grep -qs 'VM status: running' "$dir/loaded.log"; do echo info status; sleep 0.2; done
  echo quit
} | "${vm[@]}" -incoming "exec:cat $dir/vm.state" > "$dir/loaded.log"

grep -qa 'VM status: running' "$dir/loaded.log"
echo "The VM was saved with its device ($(stat -c %s "$dir/vm.state") bytes), and runs again."
rm -r "$dir"
