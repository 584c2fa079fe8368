import { closeSync, openSync, readSync } from 'node:fs';
import { ShimError } from '../error.ts';
import { fileError } from '../state-file/errors.ts';

/** Gives the bytes of a recording to `use`; `-` is stdin. What is wrong with them is told with the file's name. */
export function readingRecording<T>(file: string, use: (pieces: Iterable<Uint8Array>) => T): T {
  try {
    return use(piecesOf(file));
  } catch (error) {
    if (!(error instanceof ShimError) || !error.code.startsWith('ERR_FILE_')) throw error;
    throw new ShimError(error.code, `${file}: ${error.message}`, { errno: 'EINVAL', cause: error });
  }
}

const PIECE = 65_536;

function* piecesOf(file: string): Generator<Uint8Array> {
  const bytes = Buffer.alloc(PIECE);
  const fd = onFile(file, () => (file === '-' ? 0 : openSync(file, 'r')));
  try {
    for (;;) {
      const length = onFile(file, () => readSync(fd, bytes));
      if (length === 0) return;
      yield bytes.subarray(0, length);
    }
  } finally {
    if (fd !== 0) closeSync(fd);
  }
}

function onFile<T>(file: string, access: () => T): T {
  try {
    return access();
  } catch (error) {
    throw fileError(file, error);
  }
}
