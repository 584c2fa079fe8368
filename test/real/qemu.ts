import { basename } from 'node:path';
import { qemuBinary, type QemuVersion } from './binaries.ts';
import type { Child, Exit } from './processes.ts';
import { QmpClient } from './qmp.ts';
import { QtestClient } from './qtest.ts';
import { connectWhenReady } from './socket.ts';
import { poll, within } from './wait.ts';

export interface VmOptions {
  /** Default: 7.2. */
  readonly qemu?: QemuVersion;
  /** What QEMU runs under, e.g. `[node, 'dist/cli/main.js', 'run', '--device', 'qat', '--']`. */
  readonly prefix?: readonly string[];
  /** `sysfsdev` directories of VFIO devices, at PCI slots VFIO_SLOT, VFIO_SLOT + 1, ... */
  readonly vfio?: readonly string[];
  /** More properties of each, e.g. `x-device-dirty-page-tracking=off`. */
  readonly vfioProperties?: readonly string[];
  /** Wait for a migration (`-incoming defer`). */
  readonly incoming?: boolean;
  /** Leave the CPU stopped (`-S`). */
  readonly paused?: boolean;
  /** The value of `-sandbox`. */
  readonly sandbox?: string;
  readonly args?: readonly string[];
}

/** The PCI slot of the first VFIO device; the same in every VM, since it names the device in the migration stream. */
export const VFIO_SLOT = 4;

/** The BIOS tick counter at 40:6C, which the timer interrupt increments 18.2 times a second. */
const BIOS_TICKS = 0x46c;

export interface Bar {
  readonly address: number;
  readonly size: number;
}

interface PciDevice {
  readonly slot: number;
  readonly regions: readonly { readonly bar: number; readonly address: number; readonly size: number }[];
}

/** How a VFIO device is made to migrate. QEMU 10's default, `auto`, would want dirty page tracking. */
export const VFIO_MIGRATION: Readonly<Record<QemuVersion, readonly string[]>> = {
  '7.2': ['x-enable-migration=on'],
  '10.0': ['enable-migration=on', 'migration-events=on'],
};

/** The VFIO devices, one `-device` each. */
function vfioDevices({ qemu = '7.2', vfio = [], vfioProperties = [] }: VmOptions): string[] {
  const properties = [...VFIO_MIGRATION[qemu], ...vfioProperties].join();
  return vfio.flatMap((directory, index) => [
    '-device',
    `vfio-pci,sysfsdev=${directory},${properties},id=vfio${index},addr=${VFIO_SLOT + index}`,
  ]);
}

/**
 * The command line of a small VM with nothing but SeaBIOS to run; it halts between timer interrupts, for ever. The machine is
 * one that every QEMU of the tests has, so that they can migrate to each other.
 */
export function qemuCommand(socketStem: string, options: VmOptions): string[] {
  const machine = '-machine pc-i440fx-7.2 -accel tcg -m 64 -nodefaults -display none -qtest-log none';
  return [
    ...(options.prefix ?? []),
    qemuBinary(options.qemu ?? '7.2'),
    ...machine.split(' '),
    '-qmp',
    `unix:${socketStem}.qmp,server=on,wait=off`,
    '-qtest',
    `unix:${socketStem}.qtest,server=on,wait=off`,
    ...(options.paused === true ? ['-S'] : []),
    ...(options.incoming === true ? ['-incoming', 'defer'] : []),
    ...(options.sandbox === undefined ? [] : ['-sandbox', options.sandbox]),
    ...vfioDevices(options),
    ...(options.args ?? []),
  ];
}

/** A running QEMU: its monitor, its guest-physical memory and its process. */
export class Vm {
  readonly name: string;
  readonly child: Child;
  readonly qmp: QmpClient;
  readonly memory: QtestClient;

  private constructor(name: string, child: Child, qmp: QmpClient, memory: QtestClient) {
    this.name = name;
    this.child = child;
    this.qmp = qmp;
    this.memory = memory;
  }

  /** Waits until the machine is built; a device that QEMU cannot realize is an error that quotes QEMU. */
  static async attach(child: Child, socketStem: string, ms = 30_000): Promise<Vm> {
    const gone = (): string | undefined => child.fate;
    const name = basename(socketStem);
    try {
      const qmp = await QmpClient.open(await connectWhenReady(`${socketStem}.qmp`, ms, gone), ms);
      await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
      const memory = new QtestClient(await connectWhenReady(`${socketStem}.qtest`, ms, gone));
      return new Vm(name, child, qmp, memory);
    } catch (error) {
      await within(child.exited, 2000, '').catch(() => {});
      const why = child.fate ?? `${(error as Error).message}\n${child.stderr}`;
      throw new Error(`VM ${name} did not start: ${why}`, { cause: error });
    }
  }

  /** RunState: `running`, `paused`, `inmigrate`, `postmigrate`, ... */
  async status(): Promise<string> {
    const { status } = await this.qmp.execute<{ status: string }>('query-status');
    return status;
  }

  async waitForStatus(wanted: string, ms = 15_000): Promise<void> {
    let last = '';
    const ask = async (): Promise<true | undefined> => ((last = await this.status()) === wanted ? true : undefined);
    await poll(ask, ms, () => `VM ${this.name} to be ${wanted}, it is ${last}`);
  }

  async stop(): Promise<void> {
    await this.qmp.execute('stop');
  }

  async cont(): Promise<void> {
    await this.qmp.execute('cont');
  }

  /** Where the guest sees a memory BAR; `undefined` while the firmware has not placed or enabled it. */
  async findBar(slot: number, bar: number): Promise<Bar | undefined> {
    const buses = await this.qmp.execute<{ devices: PciDevice[] }[]>('query-pci');
    const device = buses.flatMap((bus) => bus.devices).find((candidate) => candidate.slot === slot);
    if (device === undefined) throw new Error(`VM ${this.name} has no PCI device in slot ${slot}`);
    const region = device.regions.find((candidate) => candidate.bar === bar);
    if (region === undefined) throw new Error(`VM ${this.name}: the device in slot ${slot} has no BAR ${bar}`);
    // PCI_BAR_UNMAPPED is -1.
    return region.address > 0 ? { address: region.address, size: region.size } : undefined;
  }

  async bar(slot: number, bar: number): Promise<Bar> {
    const found = await this.findBar(slot, bar);
    if (found === undefined) throw new Error(`VM ${this.name}: BAR ${bar} of slot ${slot} is not mapped`);
    return found;
  }

  /** The BIOS tick counter: it proves that the CPU runs, and goes on where it was after a migration. */
  ticks(): Promise<number> {
    return this.memory.readU32(BIOS_TICKS);
  }

  /** Waits until the CPU has handled some more timer interrupts. */
  async waitForTicks(count = 2, ms = 20_000): Promise<void> {
    const first = await this.ticks();
    const ask = async (): Promise<true | undefined> => ((await this.ticks()) >= first + count ? true : undefined);
    await poll(ask, ms, () => `VM ${this.name} to tick on from ${first}; is its CPU running?`);
  }

  /** Waits until SeaBIOS has mapped the PCI devices and idles. */
  async waitForFirmware(ms = 30_000): Promise<void> {
    const idle = async (): Promise<true | undefined> => ((await this.ticks()) > 0 ? true : undefined);
    await poll(idle, ms, `firmware of VM ${this.name} to start the timer`);
    await this.waitForTicks();
  }

  /** Ends QEMU through its monitor. */
  async quit(ms = 15_000): Promise<Exit> {
    // The answer may be lost when the process is faster.
    await this.qmp.execute('quit').catch((error: unknown) => {
      if (this.qmp.ended === undefined) throw error;
    });
    return this.waitForExit(ms);
  }

  /** The exit of the command that was started, which is QEMU or what QEMU runs under. */
  waitForExit(ms = 15_000): Promise<Exit> {
    return within(this.child.exited, ms, () => `VM ${this.name} to exit\n${this.child.stderr}`);
  }

  /**
   * The states that a VFIO device of QEMU 10 went through, by VFIO_MIGRATION events (qapi/vfio.json): `pre-copy`, `stop-copy`,
   * `stop`, `resuming`, `running`, ...
   */
  vfioStates(index = 0): string[] {
    return this.qmp.events
      .filter(
        ({ event, data }) => event === 'VFIO_MIGRATION' && data['qom-path'] === `/machine/peripheral/vfio${index}`,
      )
      .map(({ data }) => String(data['device-state']));
  }

  /** The monitor's events, one a line. */
  describeEvents(): string {
    return this.qmp.events.map(({ event, data }) => `  ${event} ${JSON.stringify(data)}\n`).join('');
  }

  disconnect(): void {
    this.qmp.close();
    this.memory.close();
  }
}
