import type { Qemu } from '../vmm/qemu-command.ts';
import { qemuVersion } from '../vmm/qemu-version.ts';

/** The QEMU to demonstrate with, a 7.x: the last that speaks v1. In words, why there is none. */
export function findQemu(): Qemu | string {
  const path = process.env['VFIO_SHIM_QEMU'] ?? 'qemu-system-x86_64';
  try {
    const version = qemuVersion(path);
    return version.startsWith('7.') ? { path, version } : `${path} is version ${version}, not 7.x`;
  } catch {
    return `no ${path} is installed`;
  }
}

/** The newest machine that a QEMU has; 7.2's is not in every 7.x. */
export function machineOf({ version }: Qemu): string {
  return `pc-i440fx-${version.split('.').slice(0, 2).join('.')}`;
}

/** The device_state that a line of QEMU's trace says was written. */
export function tracedState(line: string): number | undefined {
  const match = /^vfio_migration_set_state .* state (\d+)$/.exec(line);
  return match === null ? undefined : Number(match[1]);
}
