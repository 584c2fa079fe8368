import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { resolve } from 'node:path';
import { ShimError } from '../error.ts';
import { openToAppend } from '../interpose/process/log-file.ts';
import { behindLinks } from '../state-file/links.ts';

const { O_APPEND, O_NONBLOCK, O_WRONLY } = constants;

/** Where `--log` leads: a file that has a name, or a descriptor of something else. */
export type Log = { readonly name: string; readonly fd?: never } | { readonly name?: never; readonly fd: number };

/** Opens the file of `--trace`. Who has it open needs its name no more. */
export function openRecord(option: string, file: string): number {
  return open(option, file).fd;
}

/** Tries the file of `--log`, which is opened for each line. */
export function openLog(file: string): Log {
  const { fd, name } = open('--log', file);
  if (name === undefined || !fstatSync(fd).isFile()) return { fd };
  closeSync(fd);
  return { name };
}

/** A descriptor, and the name by which it can be had again. Throws `ERR_ARGUMENT`, whose message begins with `option`. */
function open(option: string, file: string): { readonly fd: number; readonly name: string | undefined } {
  try {
    // /dev/stderr and /dev/fd/N lead to the process's own descriptors, by links that are none to read
    if (isOwnDescriptor(file)) return { fd: openSync(file, O_WRONLY | O_APPEND | O_NONBLOCK), name: undefined };
    const name = behindLinks(file);
    return { fd: openToAppend(name), name };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ShimError('ERR_ARGUMENT', `${option} ${file}: ${why}`, { cause: error });
  }
}

function isOwnDescriptor(file: string): boolean {
  return /^\/(dev\/(stdout|stderr|fd\/\d+)|proc\/self\/fd\/\d+)$/.test(resolve(file));
}
