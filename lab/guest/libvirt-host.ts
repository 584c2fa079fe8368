import { chmodSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { killHard, type Child } from '../../src/vmm/child.ts';
import { poll, within } from '../../src/vmm/deadline.ts';
import { Vm } from '../../src/vmm/vm.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { USER } from './user.ts';

/** A release of Debian whose system the guest has (host/libvirt-systems.ts). */
export type LibvirtSuite = 'bookworm' | 'trixie' | 'sid';

/** `system` is root's daemon, whose QEMUs are another user's; `session` is an ordinary user's, whose QEMUs are the user's own. */
export type LibvirtMode = 'system' | 'session';

/** Everything starts slowly here. */
const START_MS = 60_000;
const COMMAND_MS = 100_000;

/**
 * Makes a host of a release's system, in namespaces of its own: its root, and what it changes, are no other's. What libvirt does to
 * its root and to /dev before it starts a QEMU stays here. $1: the system; $2: the host's name; $3: a directory shared with this
 * guest, at /vm in the host; $4: node. The rest is the daemon. There is no polkit, and no virtlogd.
 */
const MAKE_HOST = String.raw`set -e
system=$1 name=$2 shared=$3 node=$4
shift 4
hostname "$name"
mount --make-rprivate /
root=/run/host-$name
mkdir "$root"
mount -o bind "$system" "$root"
for directory in dev proc sys project opt tmp; do mount -o rbind "/$directory" "$root/$directory"; done
mount -o bind "$node" "$root/usr/bin/node"
mount -o bind "$shared" "$root/vm"
mount -t tmpfs tmpfs "$root/run"
for directory in etc var; do
  cp -a "$root/$directory" "$root/run"
  mount -o bind "$root/run/$directory" "$root/$directory"
done
mount -t tmpfs tmpfs "$root/usr/local/bin"
user=$root/run/user/${USER}
for configuration in "$root/etc/libvirt" "$user/libvirt"; do
  mkdir -p "$configuration"
  echo 'stdio_handler = "file"' > "$configuration/qemu.conf"
  printf '%s = "%s"
' auth_unix_rw none auth_unix_ro none host_uuid "$(cat /proc/sys/kernel/random/uuid)"     > "$configuration/libvirtd.conf"
done
chown -R ${USER}:${USER} "$user"
cd "$root"
pivot_root . root
cd /
busybox umount -l /root
exec "$@"
`;

/** The daemon of each mode. An ordinary user's cannot raise limits, as VFIO needs it, and has been given them. */
const DAEMONS: Readonly<Record<LibvirtMode, readonly string[]>> = {
  system: ['libvirtd'],
  session: [
    'busybox',
    'sh',
    '-c',
    `ulimit -l unlimited
    export HOME=/run/user/${USER} XDG_RUNTIME_DIR=/run/user/${USER} XDG_CONFIG_HOME=/run/user/${USER}
    exec busybox su -m -s /bin/sh lab -c 'exec libvirtd'`,
  ],
};

/** Where a daemon of each mode listens. */
const SOCKETS = {
  system: '/run/libvirt/libvirt-sock',
  session: `/run/user/${USER}/libvirt/libvirt-sock`,
} as const;

/** A machine with libvirt, as far as libvirt can tell. */
export class LibvirtHost {
  static readonly #running = new Set<LibvirtHost>();
  readonly name: string;
  readonly mode: LibvirtMode;
  /** What the host has as /vm: its VMs' sockets are there. */
  readonly shared: string;
  readonly #daemon: Child;

  private constructor(name: string, mode: LibvirtMode, shared: string, daemon: Child) {
    this.name = name;
    this.mode = mode;
    this.shared = shared;
    this.#daemon = daemon;
    LibvirtHost.#running.add(this);
  }

  /** Starts it, and waits until its daemon listens. The bed ends the daemon. */
  static async start(bed: TestBed, name: string, suite: LibvirtSuite, mode: LibvirtMode): Promise<LibvirtHost> {
    requireCli();
    const system = await mountSystem(bed, suite);
    const shared = bed.path(name);
    mkdirSync(shared);
    chmodSync(bed.directory, 0o755);
    chmodSync(shared, 0o777);
    const daemon = bed.spawn([
      'unshare',
      '-m',
      '-u',
      'sh',
      '-c',
      MAKE_HOST,
      'host',
      system,
      name,
      shared,
      process.execPath,
      ...DAEMONS[mode],
    ]);
    const host = new LibvirtHost(name, mode, shared, daemon);
    const listens = (): true | undefined => {
      if (daemon.fate !== undefined) throw new Error(`${name}: ${daemon.fate}`);
      return existsSync(host.#socket) ? true : undefined;
    };
    await poll(listens, START_MS, () => `the daemon of ${name} to listen${daemon.lastWords}`);
    return host;
  }

  /** A path of this host as every process of the guest sees it that is root's. */
  seen(path: string): string {
    return `/proc/${this.#daemon.pid}/root${path}`;
  }

  /** The daemon's socket, as all see it. */
  get #socket(): string {
    return this.seen(SOCKETS[this.mode]);
  }

  /** For whoever is to reach its daemon. */
  get uri(): string {
    return `qemu+unix:///${this.mode}?socket=${this.#socket}`;
  }

  /** Runs a command in it; returns what that printed. */
  async run(bed: TestBed, ...command: string[]): Promise<string> {
    const child = bed.spawn(['nsenter', '-t', String(this.#daemon.pid), '-m', '-u', '--', ...command]);
    const { code } = await within(child.exited, COMMAND_MS, () => `${this.name}: ${command.join(' ')}`);
    if (code !== 0) throw new Error(`${this.name}: ${command.join(' ')}: ${child.stderr.trim()}`);
    return child.stdout;
  }

  virsh(bed: TestBed, ...args: string[]): Promise<string> {
    return this.run(bed, 'virsh', '--quiet', '-c', this.uri, ...args);
  }

  /** Installs a wrapper as its administrator does, with these options of `run`; returns its path. */
  async installWrapper(bed: TestBed, name: string, ...options: string[]): Promise<string> {
    const path = `/usr/local/bin/${name}`;
    await this.run(bed, '/usr/bin/node', CLI, 'libvirt-wrapper', '--install', path, ...options);
    return path;
  }

  /** The QEMU of a domain that runs: its monitor and its memory, beside libvirt's own connection. */
  attach(domain: string): Promise<Vm> {
    return Vm.attach(this.#daemon, join(this.shared, domain), START_MS);
  }

  /** Ends all domains of all hosts, after something has gone wrong with one. */
  static async destroyAll(bed: TestBed): Promise<void> {
    for (const host of LibvirtHost.#running) {
      const names = (await host.virsh(bed, 'list', '--name')).split('\n').filter((name) => name !== '');
      for (const name of names) await host.virsh(bed, 'destroy', name);
    }
  }

  /** Ends its daemon, whose QEMUs have ended. */
  end(): void {
    LibvirtHost.#running.delete(this);
    if (this.#daemon.pid !== undefined) killHard(this.#daemon.pid);
  }
}

/** Mounts a release's system, which the guest's host shares. */
async function mountSystem(bed: TestBed, suite: LibvirtSuite): Promise<string> {
  const place = `/run/libvirt-${suite}`;
  if (existsSync(place)) return place;
  mkdirSync(place);
  const options = 'ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose';
  const child = bed.spawn(['mount', '-t', '9p', '-o', options, `libvirt-${suite}`, place]);
  const { code } = await child.exited;
  if (code !== 0) throw new Error(`mount ${place}: ${child.stderr}`);
  return place;
}
