import { Socket } from 'node:net';
import type { OwnedFd } from '../../src/sys/fd.ts';
import { connectTo, sendFd, SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import type { Bed } from '../../src/vmm/bed.ts';
import { startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import { QmpClient } from '../../src/vmm/qmp.ts';
import type { Vm } from '../../src/vmm/vm.ts';

/* Migrations over a descriptor that QEMU is handed, as a management program does it: `getfd`, then `fd:NAME`. */

const MS = 15_000;
const NAME = 'channel';

/** JSON takes no notice of blanks. */
const BLANKS = BigInt(`0x${'20'.repeat(8)}`);

/** Options of a VM with a second monitor, for descriptors. */
export function fdMonitorArgs(bed: Bed, name: string): string[] {
  return ['-qmp', `unix:${monitorPath(bed, name)},server=on,wait=off`];
}

const monitorPath = (bed: Bed, name: string): string => bed.path(`${name}.fds`);

/**
 * Gives a descriptor away to a VM. QEMU keeps one that comes with bytes of a monitor's until getfd takes it by that monitor
 * (chardev/char-socket.c: tcp_chr_recv; monitor/fds.c: qmp_getfd; QEMU 10.0), and only that monitor knows its name: `execute` has it.
 */
async function withFd(bed: Bed, vm: Vm, fd: OwnedFd, execute: (monitor: QmpClient) => Promise<unknown>): Promise<void> {
  using gift = fd;
  const connection = connectTo(monitorPath(bed, vm.name));
  const socket = new Socket({ fd: connection.number }); // closes it
  const monitor = await QmpClient.open(socket, MS, () => vm.child.lastWords);
  try {
    sendFd(connection.number, gift.number, BLANKS);
    await monitor.execute('getfd', { fdname: NAME });
    await execute(monitor);
  } finally {
    monitor.close();
  }
}

/** Migrates a VM into another over two connected sockets, an end for each. */
export async function migrateOverFd(
  bed: Bed,
  source: Vm,
  destination: Vm,
  options: { readonly returnPath?: boolean } = {},
): Promise<void> {
  const [here, there] = socketPair(SOCK_STREAM);
  const uri = `fd:${NAME}`;
  await withFd(bed, destination, there, (monitor) => monitor.execute('migrate-incoming', { uri }));
  await withFd(bed, source, here, (monitor) => startMigration(source, uri, { ...options, monitor }));
  await waitForMigration(source, 'completed');
  await waitForMigration(destination, 'completed');
}
