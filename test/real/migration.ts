import { existsSync } from 'node:fs';
import type { Vm } from './qemu.ts';
import { poll } from './wait.ts';

/** MigrationInfo of qapi/migration.json, as far as the tests read it. */
export interface MigrationInfo {
  readonly status?: string;
  readonly 'error-desc'?: string;
  readonly downtime?: number;
  readonly 'total-time'?: number;
  readonly ram?: { readonly transferred: number; readonly remaining: number; readonly 'dirty-sync-count': number };
  readonly vfio?: { readonly transferred: number };
}

export interface MigrationParameters {
  readonly 'max-bandwidth'?: number;
  readonly 'downtime-limit'?: number;
}

const FINAL = new Set(['completed', 'failed', 'cancelled']);

export async function queryMigration(vm: Vm): Promise<MigrationInfo> {
  return vm.qmp.execute<MigrationInfo>('query-migrate');
}

/** The statuses that MIGRATION events announced, in order. */
export function migrationHistory(vm: Vm): string[] {
  return vm.qmp.events.filter((event) => event.event === 'MIGRATION').map((event) => String(event.data['status']));
}

/** Waits for one of the statuses; another final status is an error that quotes QEMU. */
export async function waitForMigration(vm: Vm, wanted: string, ms = 40_000): Promise<MigrationInfo> {
  let last: MigrationInfo = {};
  return poll(
    async () => {
      last = await queryMigration(vm);
      if (last.status === wanted) return last;
      if (last.status === undefined || !FINAL.has(last.status)) return undefined;
      const why = last['error-desc'] ?? 'QEMU gives no reason';
      throw new Error(`migration of VM ${vm.name} ${last.status}, not ${wanted}: ${why}\n${vm.child.stderr}`);
    },
    ms,
    () => `migration of VM ${vm.name} to be ${wanted}, it is ${JSON.stringify(last)}`,
  );
}

/** Slow enough that a migration stays in pre-copy until it is cancelled. */
export const CRAWL: MigrationParameters = { 'max-bandwidth': 4096, 'downtime-limit': 1 };

/** No limits: what is measured is the path, not QEMU's pacing. */
const FULL_SPEED: MigrationParameters = { 'max-bandwidth': 2 ** 40, 'downtime-limit': 10_000 };

/**
 * Begins a migration to a QEMU migration URI. With `returnPath` the source waits for the destination's verdict before it gives
 * the VM away; without it a source that has written everything takes the migration for completed.
 */
export async function startMigration(
  vm: Vm,
  uri: string,
  { parameters = FULL_SPEED, returnPath = false } = {},
): Promise<void> {
  await vm.qmp.execute('migrate-set-parameters', { ...parameters });
  await vm.qmp.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'return-path', state: returnPath }],
  });
  await vm.qmp.execute('migrate', { uri });
}

/** Saves the VM into a file, which exists under that name only when it is complete. */
export async function migrateToFile(vm: Vm, file: string): Promise<MigrationInfo> {
  await startMigration(vm, fileUri(file));
  const info = await waitForMigration(vm, 'completed');
  // QEMU announces `completed` before it closes its end of the pipe.
  await poll(() => (existsSync(file) ? true : undefined), 15_000, `${file} to be complete`);
  return info;
}

/** QEMU 7.2 has no `file:`; it runs `exec:` in a shell. */
function fileUri(file: string): string {
  return `exec:cat > ${quote(`${file}.part`)} && mv ${quote(`${file}.part`)} ${quote(file)}`;
}

/** Loads a saved VM into one that was started with `incoming`. */
export async function loadFromFile(vm: Vm, file: string): Promise<MigrationInfo> {
  await vm.qmp.execute('migrate-incoming', { uri: `exec:cat ${quote(file)}` });
  return waitForMigration(vm, 'completed');
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

function quote(path: string): string {
  return `'${path.replaceAll("'", String.raw`'\''`)}'`;
}
