import { closeSync, constants, openSync } from 'node:fs';
import { Outlet } from '../../sys/outlet.ts';
import type { Sink } from '../run/log.ts';

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;

/** A new file is its owner's only, as it tells of the VMM's addresses. Nothing waits for a pipe's reader. */
const FLAGS = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
const MODE = 0o600;

/** Opens a file that is written to while a VM runs, by a name that is no link. `how`: what else it is opened for. */
export function openToWrite(name: string, how = O_APPEND): number {
  return openSync(name, FLAGS | how, MODE);
}

/**
 * A log that has a name. It is opened for each line, and closed: a VM runs for months, in which the file is rotated, and lines are few.
 * So a line goes to the file that has the name at that moment, keeper and all supervisors agree which that is without being told, and
 * nobody keeps a file that was removed.
 */
export class LogFile implements Sink {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  write(line: Uint8Array): number {
    const fd = openToWrite(this.#name);
    try {
      return new Outlet(fd).write(line);
    } finally {
      closeSync(fd);
    }
  }
}
