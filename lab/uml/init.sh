#!/bin/sh
# The first process under user-mode Linux: the host's files, read-only, with a /tmp of its own.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME="$lab_home" VFIO_SHIM_LAB_JOB="$lab_job"
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
cd "$lab_root" || exit
"$lab_node" --import "$lab_root/node_modules/tsx/dist/loader.mjs" "lab/jobs/$lab_job.ts" 3>&1
echo o >/proc/sysrq-trigger
sleep 60
