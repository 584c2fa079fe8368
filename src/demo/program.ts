import type { ErrnoName } from '../abi/errno.ts';
import { ERROR_CODES, ShimError, type ErrorCode } from '../error.ts';
import { Child, type ChildOptions } from '../vmm/child.ts';
import { within } from '../vmm/deadline.ts';

export interface ProgramOptions extends Pick<ChildOptions, 'stdin' | 'onOutput'> {
  /** How the program is called in messages. */
  readonly name: string;
  /** Returns true if the line is no complaint. */
  readonly onError?: (line: string) => boolean;
}

/** A child whose end is told as an error of ours. */
export class Program extends Child {
  readonly name: string;
  readonly #complaints: readonly string[];

  constructor(command: readonly string[], { name, onError, ...options }: ProgramOptions) {
    const complaints: string[] = [];
    super(command, { ...options, onError: (line) => void (onError?.(line) === true || complaints.push(line)) });
    this.name = name;
    this.#complaints = complaints;
  }

  /** Waits until it has ended with status 0; any other end is an error that quotes it. */
  async succeed(ms: number): Promise<void> {
    const { code } = await within(this.exited, ms, () => `${this.name}: the end of the process${this.lastWords}`);
    if (code !== 0) throw this.failure();
  }

  failure(): ShimError {
    const ours = this.#complaints.filter((candidate) => candidate.startsWith(OURS));
    const line = ours.at(-1) ?? this.#complaints.at(-1);
    if (line !== undefined) return asError(this.name, line);
    const how = this.exit?.signal ?? `exit status ${this.exit?.code}`;
    return new ShimError('ERR_TARGET', `${this.name}: ended with ${how}`);
  }
}

const OURS = 'vfio-shim: ';

/** The error that a line such as `vfio-shim: MESSAGE [CODE, ERRNO]` told of, as far as it can be told. */
function asError(name: string, line: string): ShimError {
  const [, message = line, code = '', errno] = /^(.*?)(?: \[(ERR_\w+)(?:, (\w+))?\])?$/.exec(line) ?? [];
  const known = (ERROR_CODES as readonly string[]).includes(code) ? (code as ErrorCode) : 'ERR_TARGET';
  const who = known === 'ERR_KERNEL_FEATURE' ? 'the demo cannot run here' : name;
  const text = `${who}: ${message.startsWith(OURS) ? message.slice(OURS.length) : message}`;
  return new ShimError(known, text, errno === undefined ? {} : { errno: errno as ErrnoName });
}
