import { type Command } from 'commander';
import { ShimError } from '../error.ts';
import { pathOf } from '../host/device-path.ts';
import { findHolders, type Holder, type Holders } from '../host/holders.ts';
import { Host } from '../host/host.ts';
import { vfioDevices, type VfioDevice } from '../host/vfio-devices.ts';
import { openKernel } from './device-kernel.ts';
import { print } from './output.ts';
import { columns } from './table.ts';

export function add(program: Command): void {
  program
    .command('list')
    .description('the VFIO devices of this host: their drivers, groups, who has them open, which protocol they speak')
    .option('--no-open', 'open nothing: which protocol a driver speaks is not asked')
    .option('--json', 'print JSON')
    .addHelpText('after', help)
    .action((options: { open: boolean; json?: true }) => {
      const devices = list(new Host(), options.open ? protocolAt : undefined);
      print(options.json === true ? `${JSON.stringify({ devices })}\n` : inWords(devices));
    });
}

const help = `
A device that nobody has open is opened for a moment, to ask its driver. A VMM that opens its group in that moment is told
that it is in use (EBUSY), and the driver may reset the device, as it does for a VMM. --no-open leaves all as it is.`;

/** What is known of a device, as `--json` has it. */
export interface Listed {
  readonly name: string;
  readonly bus: string | null;
  readonly driver: string | null;
  readonly group: string | null;
  readonly vfio: string | null;
  readonly protocol: string | null;
  /** Why the protocol is not known. */
  readonly unknown: string | null;
  readonly openBy: readonly Holder[];
  /** Why there may be more who have it open. */
  readonly unseen: string | null;
}

/** All devices. `ask`: opens a device by its path, and says which protocol it speaks; without it none is asked. */
export function list(host: Host, ask: ((path: string) => string) | undefined): Listed[] {
  const holders = findHolders(host);
  return vfioDevices(host).map((device) => listed(host, device, holders, ask));
}

function listed(host: Host, device: VfioDevice, holders: Holders, ask?: (path: string) => string): Listed {
  const { name, bus, driver, group, vfio } = device;
  const openBy = holdersOf(device, holders);
  const answer = answerOf(host, device, openBy, ask);
  const isFree = 'protocol' in answer; // a group, or a bound device, lets nobody else in
  return {
    name,
    bus: bus ?? null,
    driver: driver ?? null,
    group: group ?? null,
    vfio: vfio ?? null,
    protocol: isFree ? answer.protocol : null,
    unknown: isFree ? null : answer.unknown,
    openBy,
    unseen: isFree || openBy.length > 0 ? null : (holders.unseen ?? (answer.unknown === BUSY ? HIDDEN : null)),
  };
}

const BUSY = 'busy';
const HIDDEN = 'a process that /proc does not show has it';

type Answer = { readonly protocol: string } | { readonly unknown: string };

function answerOf(host: Host, device: VfioDevice, openBy: readonly Holder[], ask?: (path: string) => string): Answer {
  if (ask === undefined) return { unknown: 'not asked' };
  if (openBy.length > 0) return { unknown: BUSY };
  try {
    return { protocol: ask(pathOf(host, device)) };
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    return { unknown: error.errno === 'EBUSY' ? BUSY : error.message };
  }
}

/** Who has the device, or all of its group. A process that has both nodes open is one. */
function holdersOf({ group, vfio }: VfioDevice, { byNode }: Holders): Holder[] {
  const nodes = [`/dev/vfio/${group}`, `/dev/vfio/devices/${vfio}`];
  const all = nodes.flatMap((node) => byNode.get(node) ?? []);
  return [...new Map(all.map((holder) => [holder.pid, holder])).values()];
}

function protocolAt(path: string): string {
  const device = openKernel(path, true);
  try {
    return device.migratable?.protocol ?? 'none';
  } finally {
    device.close();
  }
}

/** What `list` prints for people. */
export function inWords(devices: readonly Listed[]): string {
  if (devices.length === 0) return 'No device of this host is bound to a VFIO driver.\n';
  const rows = devices.map(({ name, driver, group, vfio, protocol, unknown, ...device }) => [
    name,
    driver ?? 'none',
    group ?? '-',
    vfio ?? '-',
    protocol ?? `cannot tell: ${unknown}`,
    openBy(device),
  ]);
  return columns([['DEVICE', 'DRIVER', 'GROUP', 'VFIO', 'PROTOCOL', 'OPEN BY'], ...rows]);
}

function openBy({ openBy: holders, unseen }: Pick<Listed, 'openBy' | 'unseen'>): string {
  if (holders.length > 0) return holders.map(({ pid, command }) => `${pid} ${printable(command)}`).join(', ');
  return unseen === null ? 'nobody' : `cannot tell: ${unseen}`;
}

/** A process calls itself what it likes: what a terminal would take for more than text is escaped. */
function printable(command: string): string {
  return /^[\x21-\x7e]+$/.test(command) ? command : JSON.stringify(command).replaceAll(/[^\x20-\x7e]/g, '?');
}
