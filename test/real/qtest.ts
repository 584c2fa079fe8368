import type { Socket } from 'node:net';
import { readLines } from './socket.ts';
import { within } from './wait.ts';

/** Bytes per request: one line of the protocol holds a request or an answer whole. */
const CHUNK = 256 * 1024;

/**
 * QEMU's qtest protocol (softmmu/qtest.c): reads and writes of guest-physical memory, MMIO included. Unlike the gdb stub, which
 * stops the VM when a debugger connects and again at each packet, it works while the CPU runs under TCG.
 */
export class QtestClient {
  readonly #socket: Socket;
  readonly #waiting: { readonly resolve: (line: string) => void; readonly reject: (error: Error) => void }[] = [];
  #ended: string | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    readLines(
      socket,
      (line) => this.#waiting.shift()?.resolve(line),
      (reason) => {
        this.#ended = reason;
        for (const waiting of this.#waiting.splice(0)) waiting.reject(new Error(`qtest: ${reason}`));
      },
    );
  }

  async read(address: number, length: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let at = 0; at < length; at += CHUNK) {
      const answer = await this.#request(`b64read 0x${(address + at).toString(16)} ${Math.min(CHUNK, length - at)}`);
      pieces.push(Buffer.from(answer, 'base64'));
    }
    return Buffer.concat(pieces, length);
  }

  async write(address: number, data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; at += CHUNK) {
      const piece = Buffer.from(data.subarray(at, at + CHUNK));
      await this.#request(`b64write 0x${(address + at).toString(16)} ${piece.length} ${piece.toString('base64')}`);
    }
  }

  async readU32(address: number): Promise<number> {
    return Number(await this.#request(`readl 0x${address.toString(16)}`));
  }

  async writeU32(address: number, value: number): Promise<void> {
    await this.#request(`writel 0x${address.toString(16)} 0x${value.toString(16)}`);
  }

  /** Writes an I/O port, as the guest's CPU would. */
  async outl(port: number, value: number): Promise<void> {
    await this.#request(`outl 0x${port.toString(16)} 0x${value.toString(16)}`);
  }

  async outb(port: number, value: number): Promise<void> {
    await this.#request(`outb 0x${port.toString(16)} 0x${value.toString(16)}`);
  }

  /** Reads an I/O port, as the guest's CPU would. */
  async inb(port: number): Promise<number> {
    return Number(await this.#request(`inb 0x${port.toString(16)}`));
  }

  close(): void {
    this.#socket.destroy();
  }

  async #request(line: string, ms = 20_000): Promise<string> {
    const shown = line.slice(0, 60);
    if (this.#ended !== undefined) throw new Error(`qtest ${shown}: ${this.#ended}`);
    const answer = new Promise<string>((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.#socket.write(`${line}\n`);
    const [verdict, ...rest] = (await within(answer, ms, `qtest ${shown}`)).split(' ');
    if (verdict !== 'OK') throw new Error(`qtest ${shown}: ${[verdict, ...rest].join(' ')}`);
    return rest.join(' ');
  }
}
