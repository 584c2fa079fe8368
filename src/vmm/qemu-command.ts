/** A QEMU program. */
export interface Qemu {
  readonly path: string;
  /** As `--version` has it, or its beginning: `7.2`, `10.0.3`. */
  readonly version: string;
}

export interface QemuOptions {
  /** What QEMU runs under, e.g. `[node, 'dist/cli/main.js', 'run', '--device', 'qat', '--']`. */
  readonly prefix?: readonly string[];
  /** Default: one that QEMU 7.2 and every later one have, so that they can migrate to each other. */
  readonly machine?: string;
  /** `sysfsdev` directories of VFIO devices, at PCI slots VFIO_SLOT, VFIO_SLOT + 1, ... */
  readonly vfio?: readonly string[];
  /** More properties of each, e.g. `x-device-dirty-page-tracking=off`. */
  readonly vfioProperties?: readonly string[];
  /** Wait for a migration (`-incoming defer`). */
  readonly incoming?: boolean;
  /** Leave the CPU stopped (`-S`). */
  readonly paused?: boolean;
  /** The guest's memory in MiB. */
  readonly memory?: number;
  /** The value of `-sandbox`. */
  readonly sandbox?: string;
  readonly args?: readonly string[];
}

/** The PCI slot of the first VFIO device; the same in every VM, since it names the device in the migration stream. */
export const VFIO_SLOT = 4;

/** The guest's memory, unless it is to have more. */
export const MEMORY_MIB = 64;

/** How a VFIO device is made to migrate. QEMU 10's default, `auto`, would want dirty page tracking. */
export function migrationProperties(version: string): readonly string[] {
  return Number.parseInt(version, 10) < 8 ? ['x-enable-migration=on'] : ['enable-migration=on', 'migration-events=on'];
}

/** The VFIO devices, one `-device` each. */
function vfioDevices(version: string, { vfio = [], vfioProperties = [] }: QemuOptions): string[] {
  const properties = [...migrationProperties(version), ...vfioProperties].join();
  return vfio.flatMap((directory, index) => [
    '-device',
    `vfio-pci,sysfsdev=${directory},${properties},id=vfio${index},addr=${VFIO_SLOT + index}`,
  ]);
}

/**
 * The command line of a small VM with nothing but SeaBIOS to run; it halts between timer interrupts, for ever. Its monitor is at
 * `socketStem`.qmp, its guest-physical memory at `socketStem`.qtest.
 */
export function qemuCommand({ path, version }: Qemu, socketStem: string, options: QemuOptions): string[] {
  return [
    ...(options.prefix ?? []),
    path,
    '-machine',
    options.machine ?? 'pc-i440fx-7.2',
    ...`-accel tcg -m ${options.memory ?? MEMORY_MIB} -nodefaults -display none -qtest-log none`.split(' '),
    '-qmp',
    `unix:${socketStem}.qmp,server=on,wait=off`,
    '-qtest',
    `unix:${socketStem}.qtest,server=on,wait=off`,
    ...(options.paused === true ? ['-S'] : []),
    ...(options.incoming === true ? ['-incoming', 'defer'] : []),
    ...(options.sandbox === undefined ? [] : ['-sandbox', options.sandbox]),
    ...vfioDevices(version, options),
    ...(options.args ?? []),
  ];
}
