import { existsSync, readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import type { DeviceReport } from '../../src/interpose/serve/report.ts';
import { MarkedChild } from '../../tools/vmm/marked-child.ts';
import type { FoundProcess } from '../../tools/vmm/processes.ts';
import type { Exit } from '../../src/vmm/child.ts';
import { poll, within } from '../../src/vmm/deadline.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import { patient } from './patience.ts';
import { lacksForRun } from './host.ts';

export interface RunOptions {
  /** `--device` values. */
  readonly devices?: readonly string[];
  /** More options of `run`. */
  readonly options?: readonly string[];
  /** Print reports at the end (`--json`). */
  readonly json?: boolean;
  readonly env?: NodeJS.ProcessEnv;
  /** What the whole is started with, e.g. `setpriv ...`. */
  readonly prefix?: readonly string[];
  /** Another copy of the command, and of Node. */
  readonly cli?: string;
  readonly node?: string;
  /** The run is not expected to remove its directory: its keeper and its supervisor are killed. */
  readonly leavesDirectory?: boolean;
}

/** The processes of a run: its keeper, its supervisor, and the target. */
interface Cast {
  readonly keeper: FoundProcess | undefined;
  readonly supervisor: FoundProcess | undefined;
  readonly others: readonly FoundProcess[];
}

/** A command under `vfio-shim run`, with its input and output as pipes. */
export class ShimRun extends MarkedChild {
  readonly options: RunOptions;
  readonly #listeners: ((line: string) => void)[];

  constructor(command: readonly string[], options: RunOptions = {}) {
    const {
      devices = ['qat'],
      options: more = [],
      json = false,
      prefix = [],
      cli = CLI,
      node = process.execPath,
    } = options;
    const specs = devices.flatMap((device) => ['--device', device]);
    const shim = [node, cli, 'run', ...specs, ...more, ...(json ? ['--json'] : []), '--', ...command];
    const listeners: ((line: string) => void)[] = [];
    super([...prefix, ...shim], {
      env: { ...process.env, ...options.env },
      stdin: 'pipe',
      onOutput(line) {
        for (const listener of listeners) listener(line);
      },
    });
    this.options = options;
    this.#listeners = listeners;
    this.stdin.on('error', () => {}); // the command may end before it has read everything
  }

  override get pid(): number {
    const { pid } = this.process;
    if (pid === undefined) throw new Error(`the run did not start\n${this.describe()}`);
    return pid;
  }

  write(text: string): void {
    this.stdin.write(text);
  }

  /** Closes the command's input. */
  end(text = ''): void {
    this.stdin.end(text);
  }

  onLine(listener: (line: string) => void): void {
    this.#listeners.push(listener);
  }

  /** Waits for the end, which must come in time. */
  async ended(ms = 20_000): Promise<Exit> {
    return within(this.exited, ms, () => `the run does not end\n${this.describe()}`);
  }

  /** What `run --json` printed, in the order of the devices. */
  reports(): DeviceReport[] {
    const lines = this.stdout.split('\n').filter((line) => line.startsWith('{"name"'));
    return lines.map((line) => JSON.parse(line) as DeviceReport);
  }

  cast(): Cast {
    const all = this.processes();
    const keeper = all.find(({ commandLine }) => commandLine.includes('keeper-main'));
    const supervisor = all.find(({ commandLine }) => commandLine.includes('supervisor-main'));
    return { keeper, supervisor, others: all.filter((found) => found !== keeper && found !== supervisor) };
  }

  /** The process id of the supervisor that serves now; waits for one, other than `not`. */
  async supervisor(not?: number): Promise<number> {
    const found = (): number | undefined => {
      const pid = this.cast().supervisor?.pid;
      return pid === not ? undefined : pid;
    };
    return poll(found, 10_000, () => `no supervisor\n${this.describe()}`);
  }

  /** The directory that the run made, as it said on stderr. */
  get directory(): string | undefined {
    return /sysfsdev directories are in (.+)$/m.exec(this.stderr)?.[1];
  }

  describe(): string {
    const fate = this.exit === undefined ? 'running' : JSON.stringify(this.exit);
    return `${this.command.join(' ')}\n${fate}\nstdout: ${this.stdout.slice(-2000)}\nstderr: ${this.stderr.slice(-4000)}`;
  }

  /** Ends what still runs; returns in words what the run should not have left behind. */
  async cleanUp(): Promise<string[]> {
    this.end();
    const words = await this.leftBehind(5000);
    const { directory } = this;
    if (directory !== undefined && existsSync(directory) && this.options.leavesDirectory !== true) {
      words.push(`directory ${directory}`);
    }
    return words;
  }
}

/** Runs of one test, or (`'all'`) of one group of tests. What they leave behind fails it. Skipped if the host cannot. */
export function useShimRuns(
  scope: 'each' | 'all' = 'each',
): (command: readonly string[], options?: RunOptions) => ShimRun {
  let runs: ShimRun[] = [];
  const lacking = lacksForRun();
  beforeEach(({ skip }) => skip(lacking !== undefined, lacking));
  const begin = (): void => {
    runs = [];
  };
  const finish = async (): Promise<void> => {
    const left = await Promise.all(
      runs.map(async (run) => {
        const words = await run.cleanUp();
        return words.length === 0 ? [] : [...words, run.describe()];
      }),
    );
    expect(left.flat(), 'left behind').toEqual([]);
  };
  if (scope === 'all') {
    beforeAll(begin);
    afterAll(finish, patient(30_000));
  } else {
    beforeEach(begin);
    afterEach(finish, patient(30_000));
  }
  return (command, options) => {
    const run = new ShimRun(command, options);
    runs.push(run);
    return run;
  };
}

/** A number of /proc/PID/status, such as `VmRSS` in kB. */
export function statusOf(pid: number, field: string): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const value = new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text)?.[1];
  if (value === undefined) throw new Error(`/proc/${pid}/status has no ${field}`);
  return Number(value);
}
