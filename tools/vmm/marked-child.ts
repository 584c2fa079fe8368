import { randomBytes } from 'node:crypto';
import { Child, killHard, type ChildOptions } from '../../src/vmm/child.ts';
import { findProcesses, MARK, stragglers, type FoundProcess } from './processes.ts';

/** A child that knows its processes by a mark, those that have left its session too. */
export class MarkedChild extends Child {
  readonly #mark: string;

  constructor(command: readonly string[], options: ChildOptions = {}) {
    const mark = randomBytes(8).toString('hex');
    super(command, { ...options, env: { ...(options.env ?? process.env), [MARK]: mark } });
    this.#mark = mark;
  }

  /** What runs of it, the process itself included. */
  processes(): FoundProcess[] {
    return findProcesses(this.#mark, new Set([this.process.pid ?? -1]));
  }

  /** Sends a signal to the process alone, which need not end. */
  signal(signal: NodeJS.Signals): void {
    this.process.kill(signal);
  }

  /** Closes this end of its standard output, so that its writes fail from then on. */
  closeOutput(): void {
    this.process.stdout?.destroy();
  }

  /** Waits until all its processes have ended; returns those that have not, in words, and kills them. */
  async leftBehind(graceMs: number): Promise<string[]> {
    const left = await stragglers(() => this.processes(), graceMs);
    for (const { pid } of left) killHard(pid);
    return left.map(({ pid, commandLine }) => `process ${pid}: ${commandLine.slice(0, 200)}`);
  }
}
