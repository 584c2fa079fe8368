import { constants, openSync } from 'node:fs';
import { resolve } from 'node:path';
import { ShimError } from '../error.ts';
import { behindLinks } from '../state-file/links.ts';

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;

/**
 * Opens a file that is written to while a VMM runs. A new one is its owner's only, as it tells of the VMM's addresses. Who
 * has it open needs its name no more. Nothing waits for a pipe's reader. `option` begins the message of what is thrown, `how` says how else it is opened.
 */
export function openRecord(option: string, file: string, how = O_APPEND): number {
  try {
    const flags = O_WRONLY | O_CREAT | O_NONBLOCK | how;
    // /dev/stderr and /dev/fd/N lead to the process's own descriptors, by links that are none to read
    return isOwnDescriptor(file) ? openSync(file, flags) : openSync(behindLinks(file), flags | O_NOFOLLOW, 0o600);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ShimError('ERR_ARGUMENT', `${option} ${file}: ${why}`, { cause: error });
  }
}

function isOwnDescriptor(file: string): boolean {
  return /^\/(dev\/(stdout|stderr|fd\/\d+)|proc\/self\/fd\/\d+)$/.test(resolve(file));
}
