import { basename } from 'node:path';
import { ShimError } from '../error.ts';
import type { Child, Exit } from './child.ts';
import { connectWhenReady } from './connect.ts';
import { fulfilled, poll, within } from './deadline.ts';
import { QmpClient } from './qmp.ts';
import { QtestClient } from './qtest.ts';

/** The BIOS tick counter at 40:6C, which the timer interrupt increments 18.2 times a second. */
export const BIOS_TICKS = 0x46c;

/** The address of a BAR that is not placed or not enabled (include/hw/pci/pci.h of QEMU). */
const PCI_BAR_UNMAPPED = -1;

/** A QEMU that has closed its connections is about to end, and to say why. */
const ENDING_MS = 2000;

export interface Bar {
  readonly address: number;
  readonly size: number;
}

interface PciDevice {
  readonly slot: number;
  readonly regions: readonly (Bar & { readonly bar: number })[];
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
    const name = basename(socketStem);
    const lastWords = (): string => child.lastWords;
    try {
      const qmp = await QmpClient.open(await connectWhenReady(`${socketStem}.qmp`, child, ms), ms, lastWords);
      await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
      const memory = new QtestClient(await connectWhenReady(`${socketStem}.qtest`, child, ms), lastWords);
      return new Vm(name, child, qmp, memory);
    } catch (error) {
      await fulfilled(child.exited, ENDING_MS);
      const why = child.fate ?? (error as Error).message;
      throw new ShimError('ERR_TARGET', `VM ${name} did not start: ${why}`, { cause: error });
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
    await poll(ask, ms, () => `VM ${this.name} to be ${wanted}, it is ${last}${this.child.lastWords}`);
  }

  async stop(): Promise<void> {
    await this.qmp.execute('stop');
  }

  async cont(): Promise<void> {
    await this.qmp.execute('cont');
  }

  /** Where the guest sees a memory BAR, which its firmware has placed. */
  async bar(slot: number, bar: number): Promise<Bar> {
    const buses = await this.qmp.execute<{ devices: PciDevice[] }[]>('query-pci');
    const device = buses.flatMap(({ devices }) => devices).find((candidate) => candidate.slot === slot);
    if (device === undefined) throw this.#failure(`no PCI device in slot ${slot}`);
    const region = device.regions.find((candidate) => candidate.bar === bar);
    if (region === undefined) throw this.#failure(`the device in slot ${slot} has no BAR ${bar}`);
    if (region.address === PCI_BAR_UNMAPPED) throw this.#failure(`BAR ${bar} of slot ${slot} is not mapped`);
    return { address: region.address, size: region.size };
  }

  /** The BIOS tick counter: it proves that the CPU runs, and goes on where it was after a migration. */
  ticks(): Promise<number> {
    return this.memory.readU32(BIOS_TICKS);
  }

  /** Waits until the CPU has handled some more timer interrupts. */
  async waitForTicks(count = 2, ms = 20_000): Promise<void> {
    const first = await this.ticks();
    const ask = async (): Promise<true | undefined> => ((await this.ticks()) >= first + count ? true : undefined);
    await poll(ask, ms, () => `VM ${this.name} to tick on from ${first}; is its CPU running?${this.child.lastWords}`);
  }

  /** Waits until SeaBIOS has mapped the PCI devices and idles. */
  async waitForFirmware(ms = 30_000): Promise<void> {
    const idle = async (): Promise<true | undefined> => ((await this.ticks()) > 0 ? true : undefined);
    await poll(idle, ms, () => `firmware of VM ${this.name} to start the timer${this.child.lastWords}`);
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
    return within(this.child.exited, ms, () => `VM ${this.name} to exit${this.child.lastWords}`);
  }

  disconnect(): void {
    this.qmp.close();
    this.memory.close();
  }

  #failure(what: string): ShimError {
    return new ShimError('ERR_TARGET', `VM ${this.name}: ${what}`);
  }
}
