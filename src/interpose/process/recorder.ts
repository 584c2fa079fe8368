import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EndLine } from '../../recording/format.ts';
import { lineOf } from '../../recording/line.ts';
import { Outlet } from '../../sys/outlet.ts';
import { SOCK_STREAM, socketPair } from '../../sys/socket.ts';
import { RING, type RecordingRing } from '../memory/recording-ring.ts';
import type { Plan } from '../run/plan.ts';
import { JudgeOutput } from './judge-output.ts';
import { monotonic, RecorderOutput, type LineTaker } from './recorder-output.ts';

/** So long lines are left to come together while there are some, in milliseconds. */
const PAUSE = 20;
/**
 * So long if the VMM makes one call after the other. Each look disturbs it, though there be another CPU: one that wakes up is free to the
 * scheduler, and the VMM and its supervisor, who wake each other, come apart.
 */
const LONG_PAUSE = 500;
/** More bytes of lines than that in a millisecond are such a VMM's: a call every 40 microseconds, of the shortest lines. */
const BUSY = 200;
/** So long whoever reads may take for the last lines, in milliseconds. */
const PATIENCE = 2000;

/** Writes down what supervisors record: the keeper does that, for whom nobody waits, and which outlives them. */
export class Recorder {
  readonly #ring: RecordingRing;
  readonly #outputs: readonly LineTaker[];
  #timer: NodeJS.Timeout | undefined;
  #pause = PAUSE;

  constructor(ring: RecordingRing, outputs: readonly LineTaker[]) {
    this.#ring = ring;
    this.#outputs = outputs;
  }

  /** Goes on whenever a byte comes by this socket, which is its own from now on. */
  wakeBy(fd: number): void {
    const socket = new Socket({ fd, readable: true, writable: false });
    socket.on('data', () => this.#goOn());
    socket.unref();
    this.#goOn();
  }

  /** Takes lines that are no supervisor's. */
  add(line: string): void {
    const bytes = Buffer.from(line);
    for (const output of this.#outputs) output.add(bytes);
  }

  /** A supervisor died; what it has left is written first. */
  takeover(why: string): void {
    this.#drain();
    this.add(lineOf({ kind: 'takeover', time: monotonic(), why }));
    this.#goOn();
  }

  /** Writes all that is left, as far as it is taken. */
  async finish(): Promise<void> {
    clearTimeout(this.#timer);
    const end = performance.now() + PATIENCE;
    while (this.#drain() && performance.now() < end) await sleep(1);
    this.#end('ended');
    while (this.#flush() && performance.now() < end) await sleep(1);
  }

  #goOn(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const isBusy = this.#ring.used > BUSY * this.#pause;
    if (!this.#drain()) {
      this.#ring.sleep();
      if (this.#ring.isEmpty) return;
    }
    const isLong = isBusy && !this.#flush(); // who reads a pipe takes little at a time
    if (isLong) this.#ring.doze();
    this.#pause = isLong ? LONG_PAUSE : PAUSE;
    this.#timer = setTimeout(() => this.#goOn(), this.#pause);
  }

  /** Writes what there is; false if there was nothing. */
  #drain(): boolean {
    if (this.#flush()) return true;
    const { state } = this.#ring; // lines that came before it are there by now
    if (this.#ring.isEmpty) {
      if (state !== RING.open) this.#end(state === RING.full ? 'limit' : 'lost');
      return this.#flush();
    }
    do {
      const lines = this.#ring.take();
      for (const output of this.#outputs) output.add(lines);
    } while (!this.#flush() && !this.#ring.isEmpty);
    return true;
  }

  #end(why: EndLine['why']): void {
    for (const output of this.#outputs) output.end(why);
  }

  /** Writes as much as is taken; true if something is left. */
  #flush(): boolean {
    let isLeft = false;
    for (const output of this.#outputs) if (output.flush()) isLeft = true;
    if (!this.#outputs.some(({ isOpen }) => isOpen)) this.#ring.close(RING.full);
    return isLeft;
  }
}

/** Begins the recording of a plan, if there is to be one. The plan for supervisors has what wakes it in place of its files. */
export function beginRecording(plan: Plan, ring: () => RecordingRing): { plan: Plan; recorder: Recorder | undefined } {
  const { recording, fds } = plan;
  if (recording === undefined) return { plan, recorder: undefined };
  const outputs: LineTaker[] = (['record', 'trace'] as const).flatMap((name) => {
    const fd = fds[name];
    return fd === undefined ? [] : [new RecorderOutput(`--${name}`, new Outlet(fd), recording.limit)];
  });
  if (recording.isJudged && fds.report !== undefined) outputs.push(new JudgeOutput(new Outlet(fds.report)));
  const recorder = new Recorder(ring(), outputs);
  recorder.add(lineOf(recording.header));
  const [mine, theirs] = socketPair(SOCK_STREAM);
  recorder.wakeBy(mine.number);
  return { plan: { ...plan, fds: { ...fds, record: undefined, trace: undefined, wake: theirs.number } }, recorder };
}
