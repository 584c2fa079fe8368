import { existsSync } from 'node:fs';
import { poll } from '../../src/vmm/deadline.ts';
import { startMigration, waitForMigration, type MigrationInfo } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';

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

function quote(path: string): string {
  return `'${path.replaceAll("'", String.raw`'\''`)}'`;
}
