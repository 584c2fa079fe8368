import type { Protocol } from '../device/migratable.ts';
import type { RecordingOptions } from './recording.ts';
import type { Failure } from './failure.ts';

/** What a transfer does, one after the other; each has its own count of bytes. */
const STEPS = [
  'open device',
  'check file',
  'save',
  'restore',
  'sync file',
  'hash memory',
  'read file',
  'write file',
] as const;
export type TransferStep = (typeof STEPS)[number];

/** What a command's two threads share while one moves a state, or reads a file; the other watches signals and shows progress. */
export class TransferControl {
  static readonly SIZE = 32;
  readonly memory: SharedArrayBuffer;
  readonly #flags: Int32Array;
  readonly #counts: Float64Array;

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(TransferControl.SIZE)) {
    this.memory = memory;
    this.#flags = new Int32Array(memory, 0, 2);
    this.#counts = new Float64Array(memory, 8, 2);
  }

  get interrupted(): boolean {
    return Atomics.load(this.#flags, 0) === 1;
  }

  interrupt(): void {
    Atomics.store(this.#flags, 0, 1);
  }

  get step(): TransferStep {
    return STEPS[Atomics.load(this.#flags, 1)] ?? 'open device';
  }

  /** Begins a step. How many bytes there are to it may become known later, or never. */
  begin(step: TransferStep, total = 0): void {
    this.done = 0;
    this.total = total;
    Atomics.store(this.#flags, 1, STEPS.indexOf(step));
  }

  /** Bytes that have been moved, or checked. */
  get done(): number {
    return this.#counts[0] ?? 0;
  }

  set done(bytes: number) {
    this.#counts[0] = bytes;
  }

  /** Bytes that there are, never less than are done; 0 if it is not known. */
  get total(): number {
    const total = this.#counts[1] ?? 0;
    return total === 0 ? 0 : Math.max(this.done, total);
  }

  set total(bytes: number) {
    this.#counts[1] = bytes;
  }
}

interface AnyOrder {
  readonly file: string;
  readonly force: boolean;
  readonly verbose: boolean;
  readonly control: SharedArrayBuffer;
}

/** What is to be done: `save DEVICE FILE` or `restore DEVICE FILE`. */
export interface TransferOrder extends AnyOrder {
  readonly command: 'save' | 'restore';
  readonly device: string;
  readonly recording: RecordingOptions;
}

/** `stream FILE`: to list what it has, or to make of it the file `output`. */
export interface StreamOrder extends AnyOrder {
  readonly command: 'stream';
  readonly action: StreamAction;
}

export type StreamAction =
  | { readonly what: 'list' }
  | { readonly what: 'extract'; readonly device: string; readonly output: string }
  | { readonly what: 'replace'; readonly device: string; readonly state: string; readonly output: string }
  | { readonly what: 'convert'; readonly output: string };

export type Order = TransferOrder | StreamOrder;

/** The line of `--json`. */
export interface TransferResult {
  readonly command: 'save' | 'restore';
  readonly device: string;
  readonly protocol: Protocol;
  readonly file: string;
  /** Bytes and buffers of migration data. */
  readonly bytes: number;
  readonly buffers: number;
  readonly seconds: number;
  readonly mibPerSecond: number;
  /** Of the file, behind its header. */
  readonly sha256: string;
  /** The states that the device was brought to, in order. */
  readonly states: readonly string[];
  /** Of a simulated device: of all memory that the guest sees. */
  readonly guestSha256?: string;
}

/** A VFIO device in a migration file. */
export interface ListedDevice {
  readonly device: string;
  readonly instanceId: number;
  /** PCI vendor and device, subsystem vendor and device; null if the file does not tell. */
  readonly id: string | null;
  readonly subsystem: string | null;
  readonly state: 'here' | 'multifd';
  readonly layout: '5.2' | '6.2' | null;
  readonly protocol: 'v1' | 'v2' | null;
  readonly dataBytes: number;
  readonly dataRecords: number;
  readonly configBytes: number;
  readonly configOffset: number | null;
  readonly sections: Readonly<Record<'start' | 'part' | 'end' | 'full', number>>;
  readonly flags: readonly string[];
  /** Where its first section begins, and its last ends. */
  readonly begin: number;
  readonly end: number;
}

/** The line of `stream --json`. */
export type StreamResult = { readonly command: 'stream'; readonly file: string } & (
  | {
      readonly action: 'list';
      readonly bytes: number;
      readonly machine: string;
      readonly capabilities: readonly string[];
      readonly mappedRam: boolean;
      /** The description of all sections is at its end. */
      readonly described: boolean;
      readonly devices: readonly ListedDevice[];
    }
  | {
      readonly action: 'extract';
      readonly device: string;
      readonly output: string;
      readonly protocol: 'v1' | 'v2' | null;
      readonly bytes: number;
      readonly buffers: number;
      readonly sha256: string;
      readonly identity: Readonly<Record<string, string>>;
    }
  | {
      readonly action: 'replace';
      readonly device: string;
      readonly state: string;
      readonly output: string;
      readonly bytes: number;
      readonly buffers: number;
    }
  | { readonly action: 'convert'; readonly output: string; readonly devices: readonly string[] }
);

export type TransferMessage =
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'temporary'; readonly path: string }
  | { readonly kind: 'done'; readonly result: TransferResult | StreamResult }
  | { readonly kind: 'failed'; readonly failure: Failure };
