import type { Socket } from 'node:net';
import { ShimError } from '../error.ts';
import { onClose } from './connect.ts';
import { within } from './deadline.ts';
import { readLines } from './lines.ts';

/** Bytes per request: one line of the protocol holds a request or an answer whole. */
const CHUNK = 256 * 1024;

interface Waiting {
  readonly request: string;
  readonly resolve: (line: string) => void;
  readonly reject: (error: Error) => void;
}

/**
 * QEMU's qtest protocol (softmmu/qtest.c): reads and writes of guest-physical memory, MMIO included. Unlike the gdb stub, which
 * stops the VM when a debugger connects and again at each packet, it works while the CPU runs under TCG.
 */
export class QtestClient {
  readonly #socket: Socket;
  readonly #lastWords: () => string;
  readonly #waiting: Waiting[] = [];
  #ended: string | undefined;

  /** `lastWords`: what QEMU itself has to say if the connection fails. */
  constructor(socket: Socket, lastWords: () => string) {
    this.#socket = socket;
    this.#lastWords = lastWords;
    readLines(socket, (line) => this.#waiting.shift()?.resolve(line));
    onClose(socket, (reason) => {
      this.#ended = reason;
      for (const { request, reject } of this.#waiting.splice(0)) reject(this.#failure(request, reason));
    });
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
    const request = line.slice(0, 60); // it may carry much data
    if (this.#ended !== undefined) throw this.#failure(request, this.#ended);
    const answer = new Promise<string>((resolve, reject) => this.#waiting.push({ request, resolve, reject }));
    this.#socket.write(`${line}\n`);
    const text = await within(answer, ms, () => `qtest ${request}${this.#lastWords()}`);
    const [verdict, ...rest] = text.split(' ');
    if (verdict !== 'OK') throw this.#failure(request, text);
    return rest.join(' ');
  }

  #failure(request: string, why: string): ShimError {
    return new ShimError('ERR_TARGET', `qtest ${request}: ${why}${this.#lastWords()}`);
  }
}
