import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** A shell that stays root when its job becomes an ordinary user. */
export class RootShell {
  readonly #shell = spawn('sh', { stdio: ['pipe', 'pipe', 'inherit'] });
  readonly #lines = createInterface({ input: this.#shell.stdout })[Symbol.asyncIterator]();

  /** Runs one command line; throws if it fails. */
  async run(line: string): Promise<void> {
    this.#shell.stdin.write(`{ ${line}; } >&2; echo $?\n`);
    const { value } = await this.#lines.next();
    if (value !== '0') throw new Error(`${line}: status ${value}`);
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#shell.once('close', resolve));
    this.#shell.stdin.end();
    await ended;
  }
}
