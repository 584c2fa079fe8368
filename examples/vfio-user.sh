#!/bin/bash
# Saves a device whose server speaks v2 as a client of v1 does, through the proxy.
. "${0%/*}/strict.sh"
# docs/vfio-user.md shows what follows.
dir=$(mktemp -d)
npx vfio-shim serve --device qat,size=1M,seed=7 --listen "$dir/new" 2> "$dir/serve.log" &
npx vfio-shim proxy --present v1 --listen "$dir/old" --connect "$dir/new" 2> "$dir/proxy.log" &
until [ -S "$dir/new" ] && [ -S "$dir/old" ]; do kill -0 %1 %2 || exit 1; sleep 0.1; done
npx vfio-shim probe "vfio-user:$dir/old" | grep -E '^(protocol|state|region 9) '
npx vfio-shim save "vfio-user:$dir/old" "$dir/state" | grep -E '^states '
pkill -f -- "--listen $dir/" # npx hands on no signal
wait
rm -r "$dir"
