import { openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { koffiLibrary } from '../../sys/libc.ts';
import { createSharedMemory } from '../../sys/memory.ts';
import { nodeOptions } from '../run/node.ts';
import { IGNORED } from './signals.ts';

/*
 * A supervisor's program, held by the keeper: a VM may run for months, in which this package is upgraded or removed, and a
 * successor must be the program that the first supervisor was. So the program is one file (scripts/build.mjs makes it), which
 * is copied to memory; of koffi's library and of Node's executable the files are held open, which removing them does not end. The libraries
 * of a Node that is linked with some of its own, as Debian's, are found by the dynamic linker as ever.
 */

const path = join(import.meta.dirname, 'supervisor-main.js');

/** Node's executable, as this process runs it, whatever has happened to its file. */
export const NODE = '/proc/self/exe';

export class SupervisorProgram {
  /** The descriptors by which it is handed to a supervisor, in this order. */
  readonly fds: readonly number[];

  constructor() {
    const text = readFileSync(path);
    const program = createSharedMemory('vfio-shim-supervisor', text.length);
    for (let done = 0; done < text.length;) done += writeSync(program.number, text, done, text.length - done, done);
    this.fds = [program.number, openSync(koffiLibrary(), 'r')];
  }

  /** Node's arguments for a supervisor that has the descriptors from number `first` on. */
  commandLine(first: number, plan: string): string[] {
    return [...nodeOptions, '--no-flush-bytecode', '-e', bootstrap(first, first + 1), path, plan];
  }
}

/** Runs the program as the body of a function, whose `require` has Node's own modules and koffi, by the names that the build gives it. */
function bootstrap(program: number, koffi: number): string {
  return `for (const signal of ${JSON.stringify(IGNORED)}) process.on(signal, () => {});
const koffi = { exports: {} };
process.dlopen(koffi, '/proc/self/fd/${koffi}');
const text = require('node:fs').readFileSync('/proc/self/fd/${program}', 'utf8');
const main = require('node:vm').runInThisContext('(function (require) {' + text + '})', { filename: 'supervisor-main.js' });
main((name) => (name === 'koffi' || name === './koffi.node' ? koffi.exports : require(name)));`;
}
