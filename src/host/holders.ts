import { readdirSync } from 'node:fs';
import type { Host } from './host.ts';

/** A process that has a node open. */
export interface Holder {
  readonly pid: number;
  /** The name that the process has given itself (proc(5): comm): any bytes. */
  readonly command: string;
}

/** Who has which node of VFIO's open. */
export interface Holders {
  /** By the node's path, e.g. `/dev/vfio/26`. */
  readonly byNode: ReadonlyMap<string, readonly Holder[]>;
  /** Why there may be more of them, if this process may not look everywhere. */
  readonly unseen: string | undefined;
}

/** Ends in the node's path, whatever a process' own mount namespace has before it, and behind it if the node is gone. */
const NODE = /\/vfio\/((?:noiommu-)?\d+|devices\/vfio\d+)(?: \(deleted\))?$/;

/**
 * Looks through the descriptors of all processes. A VMM keeps a group open as long as it has devices of it; the devices' own
 * descriptors say nothing (`anon_inode:[vfio-device]`), but for those of their own nodes.
 */
export function findHolders(host: Host): Holders {
  const byNode = new Map<string, Holder[]>();
  let denied = 0;
  for (const pid of host.names('/proc').filter((name) => /^\d+$/.test(name))) {
    const nodes = nodesOf(host, pid);
    if (nodes === undefined) denied += 1;
    for (const node of nodes ?? []) {
      const command = host.text(`/proc/${pid}/comm`)?.replace(/\n$/, '') ?? '';
      byNode.set(node, [...(byNode.get(node) ?? []), { pid: Number(pid), command }]);
    }
  }
  return { byNode, unseen: unseen(host, denied) };
}

function unseen(host: Host, denied: number): string | undefined {
  // every namespace of processes has a first one; a /proc mounted with hidepid shows only those of the same user
  if (!host.has('/proc/1')) return '/proc does not show all processes';
  if (denied === 0) return undefined;
  return `${denied} ${denied === 1 ? 'process is' : 'processes are'} not for this user to look at`;
}

/** The nodes that a process has open, each once; `undefined` if that cannot be seen. */
function nodesOf(host: Host, pid: string): Set<string> | undefined {
  const directory = `/proc/${pid}/fd`;
  try {
    const targets = readdirSync(host.at(directory)).map((fd) => nodeIn(host.target(`${directory}/${fd}`)));
    return new Set(targets.filter((node) => node !== undefined));
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    const isGone = code === 'ENOENT' || code === 'ESRCH';
    return isGone || isKernelThread(host, pid) ? new Set() : undefined;
  }
}

function nodeIn(target: string | undefined): string | undefined {
  const node = NODE.exec(target ?? '')?.[1];
  return node === undefined ? undefined : `/dev/vfio/${node}`;
}

/** Has no descriptors, and lets only root look (linux/sched.h: PF_KTHREAD; proc_pid_stat(5): flags). */
function isKernelThread(host: Host, pid: string): boolean {
  const stat = host.text(`/proc/${pid}/stat`) ?? '';
  const flags = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[FLAGS - 3]; // behind the name, which may have anything in it
  return (Number(flags ?? 0) & PF_KTHREAD) !== 0;
}

const FLAGS = 9;
const PF_KTHREAD = 0x0020_0000;
