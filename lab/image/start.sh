#!/bin/sh
# The guest's second program, in the root image: mounts the shares, runs the jobs, powers off.
export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin HOME=/root
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
chmod 1777 /tmp
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
ip link set lo up
hostname lab
share() {
  mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2" || echo "lab: cannot mount $1"
}
share project /project ro,cache=loose
share results /results rw,cache=none
grep -qw lab.newest-qemu /proc/cmdline && share newest-qemu /opt/newest-qemu ro,cache=loose
if grep -qw lab.node-modules /proc/cmdline; then
  share node-modules /project/node_modules ro,cache=loose
  mount -t tmpfs tmpfs /project/.cache
fi

export VFIO_SHIM_QEMU=/usr/bin/qemu-system-x86_64 VFIO_SHIM_QEMU10=/opt/qemu-10/qemu-system-x86_64
export VFIO_SHIM_QEMU_NEWEST=/lab/newest-qemu-system-x86_64
cd /project || poweroff -f
if grep -qw lab.shell /proc/cmdline; then
  echo 'lab: a shell as root; exit powers off. Jobs: node lab/guest/runner.js NAME...'
  setsid cttyhack sh -l
else
  node lab/guest/runner.js > /results/runner.log 2>&1
  echo $? > /results/status
fi
umount /results
poweroff -f
