import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { ByteSource } from '../byte-source.ts';
import { onFile } from './errors.ts';
import { corrupt } from './format.ts';

/** An open file. Every failure names it. */
export class OpenFile implements ByteSource, Disposable {
  readonly path: string;
  readonly size: number;
  readonly #fd: number;

  /** Does not wait if somebody put a pipe in place of the file. */
  constructor(path: string) {
    this.path = path;
    this.#fd = onFile(path, () => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    const status = fstatSync(this.#fd);
    this.size = status.size;
    if (status.isFile()) return;
    closeSync(this.#fd);
    throw corrupt(`${path}: is not a plain file`);
  }

  read(into: Uint8Array, position: number): number {
    return onFile(this.path, () => {
      let done = 0;
      while (done < into.length) {
        const read = readSync(this.#fd, into, done, into.length - done, position + done);
        if (read === 0) break;
        done += read;
      }
      return done;
    });
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
