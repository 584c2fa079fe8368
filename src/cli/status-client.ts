import { createConnection } from 'node:net';
import type { ErrnoName } from '../abi/errno.ts';
import { ShimError } from '../error.ts';
import { parseStatus, type Status } from '../interpose/process/status.ts';
import { inFile } from '../state-file/errors.ts';

/** The longest answer, and how long it may take in milliseconds: more is none of a run. */
const LONGEST = 2 ** 20;
const PATIENCE = 5000;

/**
 * Asks at the socket of a run. Whoever answers there is not known to be one. Throws `ERR_FILE`, with the errno `ENOENT` or `ECONNREFUSED` if nobody
 * listens, and `EAGAIN` if it may be asked again; and what parseStatus() throws.
 */
export async function askStatus(path: string, patience = PATIENCE): Promise<Status> {
  try {
    return parseStatus(await answerAt(path, patience));
  } catch (error) {
    throw inFile(path, error);
  }
}

async function answerAt(path: string, ms: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let length = 0;
    const client = createConnection(path);
    const end = (settle: () => void): void => {
      clearInterval(patience);
      client.destroy();
      settle();
    };
    const refuse = (why: string, errno: ErrnoName): void =>
      end(() => reject(new ShimError('ERR_FILE', why, { errno })));
    // in two parts: if this process was stopped, one of them is over when it goes on, and the answer may be there
    let parts = 2;
    const patience = setInterval(() => {
      parts -= 1;
      if (parts === 0) refuse(`no answer in ${ms} ms`, 'ETIMEDOUT');
    }, ms / 2);
    client.on('data', (piece) => {
      pieces.push(piece);
      length += piece.length;
      if (length > LONGEST) refuse('an answer of more than 1 MiB is none of a run', 'EMSGSIZE');
    });
    client.on('error', (error: NodeJS.ErrnoException) => {
      const isBusy = error.code === 'EAGAIN' || error.code === 'ECONNRESET';
      if (isBusy) refuse(NO_ANSWER, 'EAGAIN');
      else end(() => reject(error));
    });
    client.on('end', () => {
      if (length === 0) refuse(NO_ANSWER, 'EAGAIN');
      else end(() => resolve(Buffer.concat(pieces).toString()));
    });
  });
}

const NO_ANSWER = 'no answer: too many ask at once, or the run ends';
