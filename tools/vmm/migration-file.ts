import { existsSync } from 'node:fs';
import { poll } from '../../src/vmm/deadline.ts';
import { startMigration, waitForMigration, type MigrationInfo } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';

/** How QEMU reaches a file: through a shell command, or by itself, which it can from 8.2 on. */
export type FileAccess = 'exec' | 'file';

/** Saves the VM into a file, which with `exec` exists under that name only when it is complete. */
export async function migrateToFile(vm: Vm, file: string, access: FileAccess = 'exec'): Promise<MigrationInfo> {
  const part = quote(`${file}.part`);
  await startMigration(vm, access === 'file' ? `file:${file}` : `exec:cat > ${part} && mv ${part} ${quote(file)}`);
  const info = await waitForMigration(vm, 'completed');
  // QEMU announces `completed` before it closes its end of the pipe.
  await poll(() => (existsSync(file) ? true : undefined), 15_000, `${file} to be complete`);
  return info;
}

/** Loads a saved VM into one that was started with `incoming`. */
export async function loadFromFile(vm: Vm, file: string, access: FileAccess = 'exec'): Promise<MigrationInfo> {
  await vm.qmp.execute('migrate-incoming', { uri: access === 'file' ? `file:${file}` : `exec:cat ${quote(file)}` });
  return waitForMigration(vm, 'completed');
}

function quote(path: string): string {
  return `'${path.replaceAll("'", String.raw`'\''`)}'`;
}
