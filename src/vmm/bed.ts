import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Child } from './child.ts';
import { fulfilled } from './deadline.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
/** A process that was killed ends at once, unless its kernel holds it. */
const ENDING_MS = 5000;

/** A directory and the programs that work there. They are gone when the bed is closed, and when this process ends before. */
export class Bed implements AsyncDisposable {
  readonly directory: string;
  readonly #children: Child[] = [];
  readonly #abandon = (): void => {
    this.killAll();
    rmSync(this.directory, { recursive: true, force: true });
  };
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this.#abandon();
    this.#release();
    process.kill(process.pid, signal);
  };

  /** `directory`: a fresh one, which belongs to the bed from now on. */
  constructor(directory: string) {
    this.directory = directory;
    process.once('exit', this.#abandon);
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  protected get children(): readonly Child[] {
    return this.#children;
  }

  /** From now on the bed looks after the child's end. */
  protected adopt<T extends Child>(child: T): T {
    this.#children.push(child);
    return child;
  }

  protected killAll(): void {
    for (const child of this.#children) child.kill();
  }

  /** Ends all programs and waits for that, and for what runs in their service. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.killAll();
    await fulfilled(Promise.all(this.#children.map(({ exited }) => exited)), ENDING_MS);
    for (const child of this.#children) child.forget();
    rmSync(this.directory, { recursive: true, force: true });
    this.#release();
  }

  #release(): void {
    process.off('exit', this.#abandon);
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }
}
