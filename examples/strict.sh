# For the scripts beside this file: one that fails says what its VMs said, and leaves neither a process nor a file.
set -meuo pipefail # -m: each job is a process group, and is ended as one
dir=
finish() {
  local status=$? job log
  for job in $(jobs -p); do
    kill -- "-$job" 2>/dev/null || continue
    wait "$job" || true
  done
  if [ "$status" -ne 0 ]; then
    echo "$0: failed with status $status" >&2
    # each line once, and not what the monitor echoes of its input
    [ -z "$dir" ] || for log in "$dir"/*.log; do
      [ ! -e "$log" ] || awk -v name="${log##*/}" '!/^\(qemu\)/ && !seen[$0]++ { print name ": " $0 }' "$log" >&2
    done
  fi
  [ -z "$dir" ] || rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
