import { ShimError } from '../error.ts';
import { poll } from './deadline.ts';
import type { Vm } from './vm.ts';

/** MigrationInfo of qapi/migration.json, as far as it is read here. */
export interface MigrationInfo {
  readonly status?: string;
  readonly 'error-desc'?: string;
  /** In milliseconds, as `total-time`. */
  readonly downtime?: number;
  readonly 'total-time'?: number;
  readonly ram?: { readonly transferred: number; readonly remaining: number; readonly 'dirty-sync-count': number };
  readonly vfio?: { readonly transferred: number };
}

export interface MigrationParameters {
  readonly 'max-bandwidth'?: number;
  /** In milliseconds. */
  readonly 'downtime-limit'?: number;
  readonly 'avail-switchover-bandwidth'?: number;
}

/** The statuses in which a migration ends. */
export const FINAL: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled']);

export async function queryMigration(vm: Vm): Promise<MigrationInfo> {
  return vm.qmp.execute<MigrationInfo>('query-migrate');
}

/** Waits for a status; a final one that is neither it nor what `orElse` takes is an error that quotes QEMU. */
export async function waitForMigration(
  vm: Vm,
  wanted: string,
  ms = 40_000,
  orElse?: (info: MigrationInfo) => boolean,
): Promise<MigrationInfo> {
  let last: MigrationInfo = {};
  return poll(
    async () => {
      last = await queryMigration(vm);
      if (last.status === wanted || orElse?.(last) === true) return last;
      if (last.status === undefined || !FINAL.has(last.status)) return undefined;
      const why = last['error-desc'] ?? 'QEMU gives no reason';
      const text = `migration of VM ${vm.name} ${last.status}, not ${wanted}: ${why}${vm.child.lastWords}`;
      throw new ShimError('ERR_TARGET', text);
    },
    ms,
    () => `migration of VM ${vm.name} to be ${wanted}, it is ${JSON.stringify(last)}${vm.child.lastWords}`,
  );
}

/**
 * Cancels a migration; the VM goes on. QEMU (migration_cancel() of migration/migration.c, 5.2 to 11) shuts its return path down, which
 * may be the socket that its migration thread writes to, before it says CANCELLING: if the thread writes in between, the same end is
 * called `failed`, with EPIPE. From 10 on the thread of the return path may have said why before: with the EIO that
 * qemu_file_shutdown() of migration/qemu-file.c leaves on that path.
 */
export async function cancelMigration(vm: Vm): Promise<MigrationInfo> {
  await vm.qmp.execute('migrate_cancel');
  return waitForMigration(vm, 'cancelled', undefined, cutOff);
}

const cutOff = ({ status, 'error-desc': why = '' }: MigrationInfo): boolean =>
  status === 'failed' && (why.includes('Broken pipe') || why === 'Channel error: Input/output error');

/** Slow enough that a migration stays in pre-copy until it is given more, or cancelled. */
export const CRAWL: MigrationParameters = { 'max-bandwidth': 4096, 'downtime-limit': 1 };

/**
 * No limits: what is measured is the path, not QEMU's pacing. The downtime is the longest that QEMU takes (MAX_MIGRATE_DOWNTIME), as QEMU 8
 * and later guess by what they sent lately how fast they will be, which on a busy machine is next to nothing.
 */
export const FULL_SPEED: MigrationParameters = { 'max-bandwidth': 2 ** 40, 'downtime-limit': 2_000_000 };

export async function setParameters(vm: Vm, parameters: MigrationParameters): Promise<void> {
  await vm.qmp.execute('migrate-set-parameters', { ...parameters });
}

/**
 * Begins a migration to a QEMU migration URI. With `returnPath` the source waits for the destination's verdict before it gives
 * the VM away; without it a source that has written everything takes the migration for completed. `monitor`: the one that knows the
 * descriptor that `fd:` names.
 */
export async function startMigration(
  vm: Vm,
  uri: string,
  { parameters = FULL_SPEED, returnPath = false, monitor = vm.qmp } = {},
): Promise<void> {
  await setParameters(vm, parameters);
  await vm.qmp.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'return-path', state: returnPath }],
  });
  await monitor.execute('migrate', { uri });
}

/** Makes the VM, started with `incoming`, listen for a migration; returns the URI for the source. */
export async function listen(vm: Vm, socket: string): Promise<string> {
  await vm.qmp.execute('migrate-incoming', { uri: `unix:${socket}` });
  return `unix:${socket}`;
}

/** Migrates a VM into another over a UNIX socket; returns what the source has to say about it. */
export async function migrateLive(
  source: Vm,
  destination: Vm,
  socket: string,
  options: { readonly parameters?: MigrationParameters; readonly returnPath?: boolean } = {},
): Promise<MigrationInfo> {
  await startMigration(source, await listen(destination, socket), options);
  const info = await waitForMigration(source, 'completed');
  await waitForMigration(destination, 'completed');
  return info;
}
