import { freshDirectory } from '../interpose/process/fresh-directory.ts';
import { Bed } from '../vmm/bed.ts';
import { fulfilled } from '../vmm/deadline.ts';
import { Program, type ProgramOptions } from './program.ts';

/** If one program ends, the others notice and end too. */
const OTHERS_MS = 1000;

/** The bed of one part of the demo, which knows which of its programs failed first. */
export class Workplace extends Bed {
  readonly #failed: Program[] = [];

  constructor() {
    super(freshDirectory('vfio-shim-demo-'));
  }

  start(command: readonly string[], options: ProgramOptions): Program {
    const program = this.adopt(new Program(command, options));
    void program.exited.then(({ code }) => code === 0 || this.#failed.push(program));
    return program;
  }

  /** What the program that failed first has to say; `undefined` if none has failed or is about to. */
  async failure(): Promise<Error | undefined> {
    await Promise.all(this.children.map(({ exited }) => fulfilled(exited, OTHERS_MS)));
    return this.#failed[0]?.failure();
  }
}
