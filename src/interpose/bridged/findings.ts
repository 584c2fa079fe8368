import type { Draft } from '../../v1/drafts/device.ts';
import { struct } from '../../abi/struct.ts';

const header = struct('findings', 8, {
  /** A device was bridged. */
  bridged: ['u32', 0],
  /** Bytes of text behind this, complete lines. */
  length: ['u32', 4],
});

/** The last line if there is no room for another. */
const MORE = 'and more';

/**
 * What became of the devices that the target has opened, for `-v`: logged when it is found out and, if none was bridged, once
 * more at the end. It lies in memory that counts at once and outlives this process: a successor goes on with it.
 */
export class Findings {
  readonly #header: ReturnType<typeof header.view>;
  readonly #text: Uint8Array;
  readonly #log: ((message: string) => void) | undefined;
  readonly #used = new Set<string>();

  constructor(memory: Uint8Array, log: ((message: string) => void) | undefined) {
    this.#header = header.view(memory);
    this.#text = memory.subarray(header.size);
    this.#log = log;
  }

  /** A driver's own protocol stays where it is: what the bridge adds is the other one, or its own by way of the other. */
  bridged(name: string, protocol: 'v1' | 'v2', addsOther: boolean): void {
    this.#header.bridged = 1;
    const other = protocol === 'v1' ? 'v2' : 'v1';
    const offered = addsOther ? `is offered in ${other} as well` : `is taken to ${other} and back`;
    this.#log?.(`${name}: speaks ${protocol}, and ${offered}`);
  }

  /** A driver is offered as a draft, and as nothing else of ours. */
  bridgedToDraft(name: string, protocol: 'v1' | 'v2', draft: Draft): void {
    this.#header.bridged = 1;
    this.#log?.(`${name}: speaks ${protocol}, and is offered in ${draft} as well`);
  }

  /** The VMM has asked for what belongs to one protocol: the region of v1 or a draft, the features of v2. Said once. */
  uses(name: string, protocol: 'v1' | 'v2' | Draft): void {
    const text = `${name}: the VMM uses ${protocol}`;
    if (this.#used.has(text)) return;
    this.#used.add(text);
    this.#log?.(text);
  }

  /**
   * A device is left to the kernel. VMMs ask for it again and again, by threads that have not opened it: without a name it is
   * one that has been noted before.
   */
  leftAlone(name: string | undefined, why: string): void {
    if (name === undefined && this.#header.length > 0) return;
    const line = `${name ?? 'a device'}: ${why}, left alone`;
    if (this.#lines().includes(line)) return;
    this.note(line);
    this.#log?.(line);
  }

  /** Notes for the end what has been said already. */
  note(line: string): void {
    const noted = this.#lines();
    if (noted.includes(line) || noted.at(-1) === MORE) return;
    const { length } = this.#header;
    const hasRoom = length + Buffer.byteLength(line) + MORE.length + 2 <= this.#text.length;
    const bytes = Buffer.from(`${hasRoom ? line : MORE}\n`);
    this.#text.set(bytes, length);
    this.#header.length = length + bytes.length; // last: a line counts when it is complete
  }

  /** For the end: that no device was bridged, and why; `undefined` if one was. */
  get conclusion(): string | undefined {
    if (this.#header.bridged === 1) return undefined;
    const lines = this.#lines();
    return `no device was bridged: ${lines.length === 0 ? 'none was opened' : lines.join('; ')}`;
  }

  #lines(): string[] {
    const text = Buffer.from(this.#text.subarray(0, this.#header.length)).toString();
    return text.split('\n').filter((line) => line !== '');
  }
}
