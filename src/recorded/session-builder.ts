import type { ErrnoName } from '../abi/errno.ts';
import { ShimError } from '../error.ts';
import type { DataBytes } from '../recording/format.ts';
import type { DataError, Info, InSession, OutSession } from '../sim/tape.ts';

/** Data of a recording, and the line that tells of them. */
export interface Piece {
  readonly data: DataBytes;
  readonly line: number;
}

/** One session of migration data, as its calls are found in a recording one after the other. */
export class SessionBuilder {
  readonly direction: 'out' | 'in';
  readonly pieces: Piece[] = [];
  readonly #errors: DataError[] = [];
  readonly #infos: Info[] = [];
  readonly #ends: number[] = [];
  /** Bytes that the driver has given, and that its user has got: a bridge may have more of them than it passed on. */
  #given = 0;
  #got = 0;
  #preCopy = 0;
  #isWhole = false;
  #nothingNow: OutSession['nothingNow'] = null;

  constructor(direction: 'out' | 'in') {
    this.direction = direction;
  }

  /** The driver gave so many bytes. */
  gave(bytes: number, isPreCopy: boolean): void {
    this.#given += bytes;
    this.#ends.push(this.#given);
    if (isPreCopy) this.#preCopy = this.#given;
  }

  /** The driver said that there was no more. */
  ended(): void {
    this.#isWhole = true;
  }

  /** What the user of the device got or gave. */
  passed(data: DataBytes, line: number): void {
    this.pieces.push({ data, line });
    this.#got += data.bytes;
  }

  failed(errno: ErrnoName): void {
    this.#errors.push({ at: this.direction === 'out' ? this.#given : this.#got, errno });
  }

  nothingNow(): void {
    this.#nothingNow = 'ENOMSG';
  }

  /** What is still to come; the last word at a place counts. */
  told(info: Omit<Info, 'at'>): void {
    const last = this.#infos.at(-1);
    if (last?.at === this.#given && last.state === info.state) this.#infos.pop();
    this.#infos.push({ at: this.#given, ...info });
  }

  /** As the tape has it, whose data begin there. */
  in(at: number): InSession {
    return { at, bytes: this.#got, errors: this.#errors };
  }

  /** The same of one in which the device was saved. */
  out(at: number): OutSession {
    const bytes = this.#got;
    if (bytes > this.#given) {
      const line = this.pieces.at(-1)?.line ?? 0;
      throw new ShimError(
        'ERR_FEATURE_UNSUPPORTED',
        `line ${line}: the VMM has ${bytes} bytes of the driver's data by now, of which ${this.#given} are known to have been read`,
      );
    }
    return {
      ...this.in(at),
      preCopy: Math.min(this.#preCopy, bytes),
      ends: this.#ends.filter((end) => end <= bytes),
      infos: this.#infos,
      isWhole: this.#isWhole && bytes === this.#given,
      nothingNow: this.#nothingNow,
    };
  }
}
