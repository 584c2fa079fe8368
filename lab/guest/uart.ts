import { createHash } from 'node:crypto';
import { VFIO_SLOT, type Vm } from '../../test/real/qemu.ts';

/** Registers of a 16550A at their offsets in a port's BAR, which is I/O space. */
const LINE_CONTROL = 3;
const MODEM_CONTROL = 4;
const SCRATCH = 7;

/** Those that reading does not change and that mtty's migration data holds (samples/vfio-mdev/mtty.c: struct serial_port). */
const STATE = [LINE_CONTROL, MODEM_CONTROL, SCRATCH];

/** A port of an mtty as the VM sees it: port N is BAR N. */
export class Uart {
  readonly #vm: Vm;
  readonly #slot: number;
  readonly #port: number;

  constructor(vm: Vm, { port = 0, slot = VFIO_SLOT } = {}) {
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

  /** The scratch register, which has no function but to be remembered. */
  scratch(): Promise<number> {
    return this.read(SCRATCH);
  }

  async setScratch(value: number): Promise<void> {
    await this.write(SCRATCH, value);
  }

  /** Puts bytes into every register of its state; `seed` makes them differ. */
  async imprint(seed: number): Promise<void> {
    await this.write(LINE_CONTROL, seed & 0x7f); // bit 7 would put the divisor latch in the place of other registers
    await this.write(MODEM_CONTROL, (seed >> 2) & 0x0f);
    await this.write(SCRATCH, seed & 0xff);
  }

  /** The registers of its state. */
  async registers(): Promise<number[]> {
    const values: number[] = [];
    for (const register of STATE) values.push(await this.read(register));
    return values;
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
