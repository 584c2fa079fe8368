import { spawnSync } from 'node:child_process';

export interface Qemu {
  readonly path: string;
  readonly version: string;
}

/** The QEMU to demonstrate with, a 7.x: the last that speaks v1. In words, why there is none. */
export function findQemu(): Qemu | string {
  const path = process.env['VFIO_SHIM_QEMU'] ?? 'qemu-system-x86_64';
  const { status, stdout, error } = spawnSync(path, ['--version'], { encoding: 'utf8', timeout: 10_000 });
  if (error !== undefined || status !== 0) return `no ${path} is installed`;
  const version = /version (\d+\.\d+\S*)/.exec(stdout)?.[1] ?? 'unknown';
  return version.startsWith('7.') ? { path, version } : `${path} is version ${version}, not 7.x`;
}

/** The PCI slot of the device; it names the device in the migration stream. */
export const SLOT = 4;

/**
 * The command line of a small VM with nothing but its firmware to run, which idles for ever. The trace event is
 * QEMU's own word on what it writes into device_state.
 */
export function qemuCommand(
  { path, version }: Qemu,
  options: { readonly monitor: string; readonly qtest: string; readonly sysfsdev: string; readonly incoming: boolean },
): string[] {
  const machine = `pc-i440fx-${version.split('.').slice(0, 2).join('.')}`;
  return [
    path,
    ...`-machine ${machine} -accel tcg -m 64 -nodefaults -display none`.split(' '),
    '-device',
    `vfio-pci,sysfsdev=${options.sysfsdev},x-enable-migration=on,addr=${SLOT}`,
    ...(options.incoming ? ['-incoming', 'defer'] : []),
    '-qmp',
    `unix:${options.monitor},server=on,wait=off`,
    '-qtest',
    `unix:${options.qtest},server=on,wait=off`,
    ...'-qtest-log none -trace vfio_migration_set_state'.split(' '),
  ];
}

/** The device_state that a line of QEMU's trace says was written. */
export function tracedState(line: string): number | undefined {
  const match = /^vfio_migration_set_state .* state (\d+)$/.exec(line);
  return match === null ? undefined : Number(match[1]);
}
