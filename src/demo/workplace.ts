import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { freshDirectory } from '../interpose/fresh-directory.ts';
import { within } from './deadline.ts';
import { Program, type ProgramOptions } from './program.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/** A directory and programs that are gone when it is closed, and when this process ends before. */
export class Workplace implements AsyncDisposable {
  readonly #directory = freshDirectory('vfio-shim-demo-');
  readonly #programs: Program[] = [];
  readonly #failed: Program[] = [];
  readonly #abandon = (): void => {
    for (const program of this.#programs) program.kill();
    rmSync(this.#directory, { recursive: true, force: true });
  };
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this.#abandon();
    this.#release();
    process.kill(process.pid, signal);
  };

  constructor() {
    process.once('exit', this.#abandon);
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  path(name: string): string {
    return join(this.#directory, name);
  }

  start(command: readonly string[], options: ProgramOptions): Program {
    const program = new Program(command, options);
    this.#programs.push(program);
    void program.ended.then((succeeded) => succeeded || this.#failed.push(program));
    return program;
  }

  /** What the program that failed first has to say; `undefined` where none has failed or is about to. */
  async failure(): Promise<Error | undefined> {
    const ends = this.#programs.map(({ ended }) => within(ended, 1000, '').catch(() => {}));
    await Promise.all(ends);
    return this.#failed[0]?.failure();
  }

  /** Ends all programs and waits for that, and for what runs in their service. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) program.kill();
    await within(Promise.all(this.#programs.map(({ ended }) => ended)), 5000, '').catch(() => {});
    for (const program of this.#programs) program.forget();
    rmSync(this.#directory, { recursive: true, force: true });
    this.#release();
  }

  #release(): void {
    process.off('exit', this.#abandon);
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }
}
