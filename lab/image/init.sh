#!/bin/sh
# The guest's first program, in the initramfs: loads every module, then goes to the root image.
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
order=/modules/order
busybox grep -qw lab.reporting /proc/cmdline && order=/modules/reporting/order
while read -r module; do
  busybox insmod "/modules/$module.ko" || echo "lab: cannot load $module"
done < "$order"
busybox mount -t ext4 -o ro /dev/vda /root || busybox poweroff -f
for directory in proc sys dev; do
  busybox mount -o move "/$directory" "/root/$directory"
done
exec busybox switch_root /root /lab/start
