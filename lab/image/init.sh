#!/bin/sh
# The guest's first program, in the initramfs: loads a set of modules, then goes to the root image.
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
set=stock
for word in $(busybox cat /proc/cmdline); do
  case $word in lab.modules=*) set=${word#lab.modules=} ;; esac
done
while read -r module; do
  busybox insmod "/modules/$module" || echo "lab: cannot load $module"
done < "/modules/$set/order"
busybox mount -t ext4 -o ro /dev/vda /root || busybox poweroff -f
for directory in proc sys dev; do
  busybox mount -o move "/$directory" "/root/$directory"
done
exec busybox switch_root /root /lab/start
