import assert from 'node:assert/strict';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { RegionInfo } from '../../src/vfio/client/device-info.ts';
import { regionInfo } from '../../src/vfio/client/device-info.ts';
import type { VfioPort } from '../../src/vfio/port.ts';
import { Mdev } from './mdev.ts';

export const PAGE = 4096;

/** A device of v2log (lab/image/v2log.h), which logs its DMA and speaks v2; its BAR 0 is memory. */
export class V2Log extends Mdev {
  constructor() {
    super('v2log', 'v2log-1');
  }
}

/** What goes wrong on purpose, as bits of the register (lab/image/v2log.h: FAULT_*). */
export const FAULT = {
  NONE: 0,
  /** The log is lost for the range of the next REPORT, or of each, and that fails with EIO. */
  REPORT_ONCE: 1,
  REPORT: 2,
  START_EOPNOTSUPP: 4,
  START_E2BIG: 8,
  /** A REPORT forgets the first page that it should tell. */
  DROP: 16,
} as const;

const REGISTER = { IOVA: 0, RESULT: 4, COUNTER: 5, PINNED: 6, LOGGED: 7, FAULTS: 8, DROPPED: 9 } as const;
const COMMAND = { WRITE: 1, PIN: 2, WRITER: 3 } as const;
export const REGISTERS_BAR = 2;

/** Pages of the user's memory, by the address that the device has for them. */
export interface Pages {
  readonly iova: number;
  readonly pages: number;
}

/** The registers of a v2log, whoever they are reached by. A command that fails throws an error with its errno, as a number. */
export abstract class V2LogRegisters {
  protected abstract read(at: number, length: number): Promise<Buffer>;
  protected abstract write(at: number, bytes: Uint8Array): Promise<void>;

  /** Has the device write {page number, value} to the begin of each page. */
  async writePages(where: Pages, value: number): Promise<void> {
    await this.#command(COMMAND.WRITE, where, value);
  }

  async pin(where: Pages): Promise<void> {
    await this.#command(COMMAND.PIN, where);
  }

  /** Has the device write {page number, counter} to so many pages a second, over and over these. */
  async startWriter(where: Pages, pagesPerSecond: number): Promise<void> {
    await this.#command(COMMAND.WRITER, where, pagesPerSecond);
  }

  async setFaults(faults: number): Promise<void> {
    await this.write(REGISTER.FAULTS * 8, u64s(faults));
  }

  /** How many pages the background writer has written. */
  counter(): Promise<number> {
    return this.#register(REGISTER.COUNTER);
  }

  pinned(): Promise<number> {
    return this.#register(REGISTER.PINNED);
  }

  /** How many pages are in the log. */
  logged(): Promise<number> {
    return this.#register(REGISTER.LOGGED);
  }

  /** How many pages were left out of reports. */
  dropped(): Promise<number> {
    return this.#register(REGISTER.DROPPED);
  }

  async #command(command: number, { iova, pages }: Pages, value = 0): Promise<void> {
    await this.write(REGISTER.IOVA * 8, u64s(iova, pages, value, command));
    const result = await this.#register(REGISTER.RESULT);
    if (result !== 0) throw new Error(`v2log: command ${command} for ${pages} pages at ${iova}: ${result}`);
  }

  async #register(register: number): Promise<number> {
    return Number((await this.read(register * 8, 8)).readBigInt64LE());
  }
}

function u64s(...values: readonly number[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values, BigInt).buffer);
}

/** As the guest of a VM reaches them. */
export class GuestRegisters extends V2LogRegisters {
  readonly #vm: Vm;
  readonly #slot: number;

  constructor(vm: Vm, slot = VFIO_SLOT) {
    super();
    this.#vm = vm;
    this.#slot = slot;
  }

  protected async read(at: number, length: number): Promise<Buffer> {
    return this.#vm.memory.read((await this.#address()) + at, length);
  }

  protected async write(at: number, bytes: Uint8Array): Promise<void> {
    await this.#vm.memory.write((await this.#address()) + at, bytes);
  }

  async #address(): Promise<number> {
    return (await this.#vm.bar(this.#slot, REGISTERS_BAR)).address;
  }
}

/** As a program reaches them that has opened the device. */
export class PortRegisters extends V2LogRegisters {
  readonly #port: VfioPort;
  readonly #region: RegionInfo;

  constructor(port: VfioPort) {
    super();
    const region = regionInfo(port, REGISTERS_BAR);
    assert.ok(region);
    this.#port = port;
    this.#region = region;
  }

  protected read(at: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    assert.equal(this.#port.read(this.#region, at, bytes), length);
    return Promise.resolve(bytes);
  }

  protected write(at: number, bytes: Uint8Array): Promise<void> {
    assert.equal(this.#port.write(this.#region, at, bytes), bytes.length);
    return Promise.resolve();
  }
}
