import { createHash } from 'node:crypto';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';

/** Registers of a 16550A at their offsets in a port's BAR, which is I/O space. */
const DATA = 0;
const FIFO_CONTROL = 2;
const LINE_CONTROL = 3;
const MODEM_CONTROL = 4;
const LINE_STATUS = 5;
const SCRATCH = 7;

const FIFO_ON_AND_EMPTY = 0x07;
/** What is sent is received; mtty has no line, so that it always does that. */
const LOOPBACK = 0x10;
const DATA_READY = 0x01;
/** mtty's FIFO; one that never gets empty ends a drain all the same. */
const FIFO_SIZE = 16;

/** Those that reading does not change and that mtty's migration data holds (samples/vfio-mdev/mtty.c: struct serial_port). */
const STATE = [LINE_CONTROL, MODEM_CONTROL, SCRATCH];

/** What a port shows of its state: registers, and the bytes that its receive FIFO holds. */
export interface PortState {
  readonly registers: readonly number[];
  readonly received: readonly number[];
}

/** What imprint() leaves behind; `seed` makes it differ in all its parts. */
export function imprintOf(seed: number): PortState {
  const byte = seed & 0xff;
  const lineControl = byte & 0x7f; // bit 7 would put the divisor latch in the place of other registers
  const modemControl = ((byte >> 2) & 0x0f) | LOOPBACK;
  const received = Array.from({ length: 1 + (byte % 8) }, (_, n) => (byte * 7 + n * 29) & 0xff);
  return { registers: [lineControl, modemControl, byte], received };
}

/** A port of an mtty, whoever it is seen by. */
export abstract class Port {
  abstract read(register: number): Promise<number>;
  abstract write(register: number, value: number): Promise<void>;

  /** The scratch register, which has no function but to be remembered. */
  scratch(): Promise<number> {
    return this.read(SCRATCH);
  }

  async setScratch(value: number): Promise<void> {
    await this.write(SCRATCH, value);
  }

  /** Puts bytes into every part of its state. */
  async imprint(seed: number): Promise<void> {
    const { registers, received } = imprintOf(seed);
    await this.write(FIFO_CONTROL, FIFO_ON_AND_EMPTY);
    for (const [n, register] of STATE.entries()) await this.write(register, registers[n] ?? 0);
    for (const byte of received) await this.write(DATA, byte);
  }

  /** The registers of its state. */
  async registers(): Promise<number[]> {
    const values: number[] = [];
    for (const register of STATE) values.push(await this.read(register));
    return values;
  }

  /** All of its state. What its FIFO holds is read, and put back. */
  async state(): Promise<PortState> {
    const received: number[] = [];
    while (received.length <= FIFO_SIZE && ((await this.read(LINE_STATUS)) & DATA_READY) !== 0) {
      received.push(await this.read(DATA));
    }
    for (const byte of received) await this.write(DATA, byte);
    return { registers: await this.registers(), received };
  }
}

/** A port of an mtty as the VM sees it: port N is BAR N. */
export class Uart extends Port {
  readonly #vm: Vm;
  readonly #slot: number;
  readonly #port: number;

  constructor(vm: Vm, { port = 0, slot = VFIO_SLOT } = {}) {
    super();
    this.#vm = vm;
    this.#slot = slot;
    this.#port = port;
  }

  async read(register: number): Promise<number> {
    return this.#vm.memory.inb((await this.#address()) + register);
  }

  async write(register: number, value: number): Promise<void> {
    await this.#vm.memory.outb((await this.#address()) + register, value);
  }

  /** Where the firmware put the BAR; it is asked each time, since a migration brings the source's. */
  async #address(): Promise<number> {
    return (await this.#vm.bar(this.#slot, this.#port)).address;
  }
}

/** A hash over the registers of all ports of an mtty. */
export async function hashOfMtty(vm: Vm, ports: number, slot = VFIO_SLOT): Promise<string> {
  const hash = createHash('sha256');
  for (let port = 0; port < ports; port++) hash.update(Buffer.from(await new Uart(vm, { port, slot }).registers()));
  return hash.digest('hex');
}
