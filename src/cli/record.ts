import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { resolve } from 'node:path';
import { ShimError } from '../error.ts';
import { openToWrite } from '../interpose/process/log-file.ts';
import { behindLinks } from '../state-file/links.ts';

const { O_APPEND, O_NONBLOCK, O_WRONLY } = constants;

/** Where `--log` leads: a file that has a name, or a descriptor of something else. */
export type Log = { readonly name: string; readonly fd?: never } | { readonly name?: never; readonly fd: number };

/**
 * Opens a file that is written to while a VMM runs. A new one is its owner's only, as it tells of the VMM's addresses. Who
 * has it open needs its name no more. Nothing waits for a pipe's reader. `option` begins the message of what is thrown, `how` says how else it is opened.
 */
export function openRecord(option: string, file: string, how = O_APPEND): number {
  return open(option, file, how).fd;
}

/** Tries the file of `--log`, which is opened for each line. */
export function openLog(file: string): Log {
  const { fd, name } = open('--log', file);
  if (name === undefined || !fstatSync(fd).isFile()) return { fd };
  closeSync(fd);
  return { name };
}

/** A descriptor, and the name by which it can be had again. Throws `ERR_ARGUMENT`, whose message begins with `option`. */
function open(
  option: string,
  file: string,
  how = O_APPEND,
): { readonly fd: number; readonly name: string | undefined } {
  try {
    // /dev/stderr and /dev/fd/N lead to the process's own descriptors, by links that are none to read
    if (isOwnDescriptor(file)) return { fd: openSync(file, O_WRONLY | O_NONBLOCK | how), name: undefined };
    const name = behindLinks(file);
    return { fd: openToWrite(name, how), name };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ShimError('ERR_ARGUMENT', `${option} ${file}: ${why}`, { cause: error });
  }
}

function isOwnDescriptor(file: string): boolean {
  return /^\/(dev\/(stdout|stderr|fd\/\d+)|proc\/self\/fd\/\d+)$/.test(resolve(file));
}
