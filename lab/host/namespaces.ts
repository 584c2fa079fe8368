import { Unavailable } from '../unavailable.ts';

/**
 * Makes the jobs a machine of this one: its kernel, programs and /dev, and of their own what jobs count and what they change: processes,
 * network, /tmp, /run and /dev/shm. libvirt makes no cgroups, as it finds none. $1: the words that a guest has on its kernel's command
 * line; $2, $3: project and results; $4: node; then names and directories of what is to be in /run. /mnt is there on every machine.
 */
const MAKE_MACHINE = String.raw`set -e
words=$1 project=$2 results=$3 node=$4
shift 4
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
for entry in /*; do
  case $entry in /mnt|/dev|/proc|/sys|/tmp|/run|/project|/results) continue ;; esac
  if [ -L "$entry" ]; then cp -P "$entry" /mnt
  elif [ -d "$entry" ]; then mkdir "/mnt$entry"; mount -o rbind "$entry" "/mnt$entry"
  fi
done
for directory in dev proc sys tmp run project results opt before; do mkdir -p "/mnt/$directory"; done
mount -o rbind /dev /mnt/dev
mount -o bind /sys /mnt/sys
mount -t proc proc /mnt/proc
for directory in tmp run dev/shm; do mount -t tmpfs tmpfs "/mnt/$directory"; done
chmod 1777 /mnt/tmp /mnt/dev/shm
mount -o bind "$project" /mnt/project
mount -o bind "$results" /mnt/results
while [ $# -gt 0 ]; do
  mkdir "/mnt/run/$1"
  mount -o bind,ro "$2" "/mnt/run/$1"
  shift 2
done
echo "$words" > /mnt/run/words
mount -o bind /mnt/run/words /mnt/proc/cmdline
cd /mnt
pivot_root . before
cd /project
umount -l /before
ip link set lo up
hostname lab
status=0
"$node" lab/guest/runner.js > /results/runner.log 2>&1 || status=$?
echo "$status" > /results/status
`;

export interface NamespacesOptions {
  readonly project: string;
  readonly results: string;
  /** What a guest would have on its kernel's command line. */
  readonly append: string;
}

/**
 * The command that runs the jobs in namespaces of this machine, for jobs that need no kernel of their own: it is as fast as the machine is.
 * `shares`: directories that are in /run, by their names there.
 */
export function namespacesCommand(
  shares: Readonly<Record<string, string>>,
  { project, results, append }: NamespacesOptions,
): string[] {
  if (process.getuid?.() !== 0) throw new Unavailable('namespaces with a root of their own need root');
  const namespaces = ['unshare', '--mount', '--pid', '--net', '--ipc', '--uts', '--kill-child'];
  return [
    ...namespaces,
    'sh',
    '-c',
    MAKE_MACHINE,
    'machine',
    append,
    project,
    results,
    process.execPath,
    ...Object.entries(shares).flat(),
  ];
}
