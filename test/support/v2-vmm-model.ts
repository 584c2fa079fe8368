import { PRESENT_V2_STATE_SIZE, presentV2 } from '../../src/bridge/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { V2, type V2State, type V2StateName } from '../../src/v2/states.ts';
import { join, noise } from './bytes.ts';
import { chance } from './chance.ts';
import { failure, notYet, outcome } from './errno.ts';
import { check, inStep } from './finding.ts';
import { QEMU_WROTE } from './qemu-writes.ts';
import { v1Sim } from './sims.ts';
import { SpyV1 } from './spy-v1.ts';
import { vector } from './vectors.ts';
import { v1StateText, v1User } from './v1-user.ts';
import type { V2Conditions, V2Step } from './v2-vmm-steps.ts';

/*
 * A model of what a new VMM may expect of presentV2 over a simulated v1 driver: the kernel's own answers for the state
 * machine, the v1 protocol's account of which buffers were consumed, and nothing of the bridge. Every step compares and
 * throws a Finding.
 */

const answers = JSON.parse(vector('fsm-next-state.json')) as Record<
  string,
  Record<V2StateName, Record<V2StateName, V2StateName | null>>
>;
const names = Object.keys(V2) as V2StateName[];
const nameOf = (state: number): V2StateName => names.find((name) => V2[name] === state) ?? 'ERROR';
const HEADER = 16;
const SECTION = 8192;

type Kind = 'none' | 'saving' | 'resuming';

function kindOf(state: V2StateName): Kind {
  if (state === 'RESUMING') return 'resuming';
  return state === 'PRE_COPY' || state === 'PRE_COPY_P2P' || state === 'STOP_COPY' ? 'saving' : 'none';
}

/** What is put between the parts, to see what the model says of it: above the bridge, and between it and the spy. */
export interface V2Between {
  above?(device: V2Device): V2Device;
  below?(device: V1Device): V1Device;
}

export class V2VmmModel {
  readonly #sim: ReturnType<typeof v1Sim>;
  readonly #spy: SpyV1;
  readonly #conditions: V2Conditions;
  readonly #draw: (below: number) => number;
  readonly #memory = new Uint8Array(PRESENT_V2_STATE_SIZE);
  readonly #carry = new Uint8Array(SECTION);
  readonly #flags: number;
  readonly #spec: string;
  /** A state that the device takes, as this bridge's save side would have sent it. */
  readonly #stream: Uint8Array;
  readonly #between: V2Between;
  #device: V2Device;
  /** Which part of the model takes steps, and how many it has taken. */
  #part = 'the steps';
  #steps = 0;
  #injected: string | undefined;
  #state: V2StateName = 'RUNNING';
  #session: V2DataSession | undefined;
  #old: V2DataSession | undefined;
  #received: Uint8Array[] = [];
  /** Where this session begins in the driver's account. */
  #consumedBefore = 0;
  #loadedBefore = 0;
  #written = 0;
  /** A stop is shown over device_state 4: what was loaded has never run. */
  #owing = false;

  constructor(conditions: V2Conditions, between: V2Between = {}) {
    this.#between = between;
    this.#conditions = conditions;
    this.#spec = `vendor-v1,size=20000,section=${SECTION},seed=3`;
    this.#sim = v1Sim(`${this.#spec},dirty=${conditions.dirty}`);
    this.#draw = chance(conditions.seed);
    this.#flags = conditions.offerP2P ? 7 : 5;
    this.#stream = streamOf(this.#spec, conditions.segmentation);
    this.#spy = new SpyV1(this.#sim.device, { mapped: conditions.mapped, before: (_, what) => this.#strike(what) });
    this.#device = this.#bridge();
  }

  #bridge(): V2Device {
    const { segmentation, offerP2P } = this.#conditions;
    const { above, below } = this.#between;
    const memory = { state: this.#memory, carry: this.#carry };
    const device = presentV2(below?.(this.#spy) ?? this.#spy, { segmentation, offerP2P, ...memory });
    return above?.(device) ?? device;
  }

  #strike(what: string): void {
    if (this.#injected === what) {
      this.#injected = undefined;
      throw failure('EREMOTEIO');
    }
    if (this.#conditions.seed !== 0 && this.#draw(8) === 0) throw notYet();
  }

  #try<T>(access: () => T): { readonly answer: string; readonly value: T | undefined } {
    for (;;) {
      let value: T | undefined;
      const answer = outcome(() => {
        value = access();
      });
      if (answer !== 'EAGAIN') return { answer, value };
    }
  }

  run(step: V2Step): void {
    this.#steps += 1;
    const words = [`step ${this.#steps} of ${this.#part}:`, ...wordsOf(step)].join(' ');
    inStep(
      words,
      this.#believed(),
      () => this.#accesses(),
      () => this.#do(step),
    );
  }

  #believed(): string {
    const received = this.#received.reduce((sum, piece) => sum + piece.length, 0);
    const consumed = this.#consumed().reduce((sum, buffer) => sum + buffer.length, 0);
    const kind = kindOf(this.#state);
    return [
      this.#state,
      this.#session === undefined ? 'no session' : `session: ${kind}`,
      ...(kind === 'saving' ? [`${received} bytes received, ${consumed} acknowledged to the driver`] : []),
      ...(kind === 'resuming' ? [`${this.#written} of ${this.#stream.length} bytes written`] : []),
      ...(this.#owing ? ['over a load that has never run'] : []),
      ...(this.#injected === undefined ? [] : [`the next access of ${this.#injected} fails`]),
    ].join(', ');
  }

  #accesses(): string[] {
    return this.#spy.log.map((line) => {
      const [access = '', what, value] = line.split(' ');
      return what === 'device_state' ? `${access} device_state ${v1StateText(Number(value))}` : line;
    });
  }

  #do(step: V2Step): void {
    switch (step.do) {
      case 'state':
        this.#setState(step.target);
        break;
      case 'read':
      case 'readInPlace':
        this.#read(step.bytes, step.do === 'readInPlace');
        break;
      case 'readAhead':
        this.#try(() => this.#session?.readAhead?.());
        break;
      case 'write':
      case 'writeInPlace':
        this.#write(step.bytes, step.do === 'writeInPlace');
        break;
      case 'writeAll':
        while (this.#state === 'RESUMING' && this.#session !== undefined && !this.#complete()) {
          const before = this.#written;
          this.#write(9000, false);
          if (this.#written === before) break;
        }
        break;
      case 'info':
        this.#info();
        break;
      case 'look':
        this.#look();
        break;
      case 'replace':
        this.#device = this.#bridge();
        if (this.#session !== undefined) this.#session = this.#device.openSession();
        break;
      case 'readOld':
        this.#readOld();
        break;
      case 'guest':
        this.#sim.bar.set(noise(100, step.seed), step.seed % 19_000);
        break;
      case 'reset':
        this.#device.reset();
        this.#enter('RUNNING');
        break;
      case 'resetBehind':
        this.#spy.reset();
        this.#enter('RUNNING');
        break;
      case 'inject':
        this.#injected = step.what;
        break;
    }
    this.#checkAccount();
  }

  #look(): void {
    const { answer, value } = this.#try(() => this.#device.getState());
    if (answer === 'OK') check.same('the state', nameOf(value ?? -1), this.#state);
    else check.same('the question for the state', answer, 'EREMOTEIO');
    const v1 = v1User(this.#sim.device).state();
    const expected = {
      ERROR: 6,
      STOP: 0,
      RUNNING: 1,
      STOP_COPY: 2,
      RESUMING: 4,
      RUNNING_P2P: 0,
      PRE_COPY: 3,
      PRE_COPY_P2P: 2,
    };
    const wanted = this.#owing ? 4 : expected[this.#state];
    check.same(`device_state below ${this.#state}`, v1StateText(v1), v1StateText(wanted));
  }

  #enter(state: V2StateName): void {
    const kind = kindOf(state);
    if (kind !== kindOf(this.#state)) {
      if (this.#session !== undefined) this.#old = this.#session;
      this.#session = undefined;
      this.#received = [];
      this.#consumedBefore = this.#spy.consumed.length;
      this.#loadedBefore = this.#spy.loaded.length;
      this.#written = 0;
    }
    this.#state = state;
    this.#owing = false;
  }

  #setState(target: number): void {
    const from = this.#state;
    const to = nameOf(target);
    const known = target > 0 && target < 8;
    const hop = known ? answers[this.#flags]?.[from][to] : null;
    const wayBack = from === 'PRE_COPY_P2P' && to === 'PRE_COPY';
    this.#spy.changes.length = 0;
    const { answer, value: session } = this.#try(() => this.#device.setState(target as V2State));
    this.#checkChanges(from, to);
    if (hop === null || hop === undefined || wayBack) {
      check.oneOf(`${from} to ${known ? to : target}, which is not to be had`, answer, ['EINVAL', 'EREMOTEIO']);
      this.#look();
      return;
    }
    if (answer === 'EREMOTEIO') {
      this.#resync(); // an injected error struck some access: the user asks with GET
      return;
    }
    if (from !== to && (from === 'RESUMING' || this.#owing)) {
      this.#leaveLoad(from, to, answer);
      return;
    }
    check.same(`${from} to ${to}`, answer, 'OK');
    const begun = session !== undefined;
    if (from === to) {
      check.that(!begun, `a session begins from ${from} to itself`);
      this.#look();
      return;
    }
    const begins = kindOf(to) !== 'none' && kindOf(to) !== kindOf(from);
    this.#enter(to);
    check.that(begun === begins, `${begun ? 'a' : 'no'} session begins from ${from} to ${to}`);
    if (begins) this.#session = session;
    this.#look();
  }

  /** Nothing is written that no QEMU ever wrote, and a device that its user believes stopped does not run in between. */
  #checkChanges(from: V2StateName, to: V2StateName): void {
    const runs = (state: V2StateName): boolean => state === 'RUNNING' || state === 'PRE_COPY';
    for (const change of this.#spy.changes) {
      const words = change
        .split('>')
        .map((state) => v1StateText(Number(state)))
        .join(' to ');
      check.that(QEMU_WROTE.has(change), `device_state was changed from ${words}, as no QEMU ever did`);
      const ran = /[13]$/.test(change) && !runs(from) && !runs(to);
      check.that(!ran, `the device ran between ${from} and ${to}: from ${words}`);
    }
  }

  /** From RESUMING, or from a stop that is shown over it: a v1 driver has only the way to RUNNING. */
  #leaveLoad(from: V2StateName, to: V2StateName, answer: string): void {
    const savesOrLoads = to === 'STOP_COPY' || to === 'PRE_COPY_P2P' || to === 'RESUMING';
    const change = `${from} to ${to} ${this.#owing ? 'over a load that never ran' : 'of a load'}`;
    if (savesOrLoads || (from === 'RESUMING' && this.#broken())) check.same(change, answer, 'EINVAL');
    else if (to === 'STOP' || to === 'RUNNING_P2P') {
      check.same(change, answer, 'OK');
      // what was loaded is still with the driver, and a refusal of 4 to 1 will lead back to it
      if (this.#session !== undefined) this.#old = this.#session;
      this.#session = undefined;
      this.#state = to;
      this.#owing = true;
    } else if (this.#complete()) {
      check.same(`${change} that is complete`, answer, 'OK');
      this.#enter(to);
      this.#session = this.#device.openSession();
    } else {
      check.same(`${change} that is not complete`, answer, 'EINVAL');
      this.#state = 'RESUMING'; // with the session it had
      this.#owing = false;
      this.#session ??= this.#device.openSession();
    }
    this.#look();
  }

  /** Whether what was written makes a whole state. */
  #complete(): boolean {
    return this.#written === this.#stream.length;
  }

  /** Whether the stream ends inside a frame. */
  #broken(): boolean {
    if (this.#conditions.segmentation === 'raw') return false;
    let at = 0;
    const view = new DataView(this.#stream.buffer);
    while (at < this.#written) {
      if (this.#written - at < HEADER) return true;
      at += HEADER + Number(view.getBigUint64(at + 8, true));
    }
    return at !== this.#written && this.#state === 'RESUMING';
  }

  /** After an error that was injected: takes over where the device says it is. */
  #resync(): void {
    const { value } = this.#try(() => this.#device.getState());
    const now = nameOf(value ?? -1);
    if (kindOf(now) === 'resuming' || this.#state === 'RESUMING' || this.#owing) {
      // half of a resume is not worth following
      this.#device.reset();
      this.#enter('RUNNING');
      return;
    }
    this.#enter(now);
    if (this.#session === undefined && kindOf(now) !== 'none') this.#session = this.#device.openSession();
  }

  /** `inPlace`: from the memory in which the session shows it, if it does. */
  #read(bytes: number, inPlace = false): void {
    if (this.#session === undefined || kindOf(this.#state) === 'none') return;
    const session = this.#session;
    const into = new Uint8Array(bytes);
    const { answer, value: length = 0 } = this.#try(() => {
      const shown = inPlace ? session.peek?.(bytes) : undefined;
      if (shown === undefined) return session.read(into);
      into.set(shown);
      session.consume?.(shown.length);
      return shown.length;
    });
    if (kindOf(this.#state) === 'resuming') {
      check.same('a read in RESUMING', answer, 'EBADF');
      return;
    }
    if (answer === 'OK' && length > 0) {
      this.#received.push(into.slice(0, length));
      return;
    }
    if (answer === 'EREMOTEIO') return;
    check.same(`the end of the stream in ${this.#state}`, answer, this.#state === 'STOP_COPY' ? 'OK' : 'ENOMSG');
    // the end, for now or for good: everything that was shown has been handed out and consumed
    const consumed = this.#consumed();
    check.bytes('what was received when the stream ends, of what was acknowledged', this.#payload(), consumed);
    if (this.#state === 'STOP_COPY' && consumed.length > 0)
      check.same('the kind of the last record in STOP_COPY', consumed.at(-1)?.[4], 3);
  }

  /** A session that is over gives nothing. */
  #readOld(): void {
    const old = this.#old;
    if (old === undefined) return;
    const { answer } = this.#try(() => old.read(new Uint8Array(9)));
    check.that(answer !== 'OK', 'a session that is over can be read');
  }

  #consumed(): Uint8Array[] {
    return this.#spy.consumed.slice(this.#consumedBefore);
  }

  /** What was received, less the frame headers, as far as it has come. */
  #payload(): Uint8Array {
    const bytes = join(this.#received);
    if (this.#conditions.segmentation === 'raw') return bytes;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const pieces: Uint8Array[] = [];
    for (let at = 0; at + HEADER <= bytes.length;) {
      const length = Number(view.getBigUint64(at + 8, true));
      pieces.push(bytes.subarray(at + HEADER, at + HEADER + length));
      at += HEADER + length;
    }
    return join(pieces);
  }

  /** The account of the v1 side: nothing is acknowledged unread, and what was read is what was shown, in order. */
  #checkAccount(): void {
    if (kindOf(this.#state) === 'saving') {
      const payload = this.#payload();
      const consumed = join(this.#consumed());
      check.bytes('what was received of what was acknowledged', payload.subarray(0, consumed.length), consumed);
      const ahead = payload.length - consumed.length;
      check.that(
        ahead <= SECTION,
        `${ahead} bytes were received and not acknowledged, more than a buffer of ${SECTION}`,
      );
    }
    if (kindOf(this.#state) === 'resuming') {
      const loaded = join(this.#spy.loaded.slice(this.#loadedBefore));
      const expected = deframed(this.#stream, this.#conditions.segmentation);
      check.bytes('what the driver has taken', loaded, expected.subarray(0, loaded.length));
    }
  }

  /** `inPlace`: into the memory that the session has for it, if it has some. */
  #write(bytes: number, inPlace: boolean): void {
    if (this.#session === undefined || kindOf(this.#state) === 'none') return;
    const session = this.#session;
    const piece = this.#stream.subarray(this.#written, this.#written + bytes);
    if (piece.length === 0) return;
    const { answer, value: length = 0 } = this.#try(() => {
      const room = inPlace ? session.room?.(piece.length) : undefined;
      if (room === undefined) return session.write(piece);
      check.that(room.length <= piece.length, `room for ${room.length} bytes, where ${piece.length} were asked for`);
      room.set(piece.subarray(0, room.length));
      session.fill?.(room.length);
      return room.length;
    });
    if (kindOf(this.#state) === 'saving') {
      check.same(`a write in ${this.#state}`, answer, 'EBADF');
      return;
    }
    if (answer === 'EREMOTEIO') {
      this.#resync();
      return;
    }
    check.same(`a write in ${this.#state}`, answer, 'OK');
    check.that(length > 0, `a write of ${piece.length} bytes takes ${length}`);
    this.#written += length;
  }

  #info(): void {
    const session = this.#session;
    if (session === undefined || kindOf(this.#state) === 'none') return;
    const { answer, value } = this.#try(() => session.precopyInfo());
    if (answer === 'EREMOTEIO') return;
    const expected = { none: 'OK', saving: this.#state === 'STOP_COPY' ? 'EINVAL' : 'OK', resuming: 'ENOTTY' };
    check.same(`precopy info in ${this.#state}`, answer, expected[kindOf(this.#state)]);
    if (answer !== 'OK') return;
    const { initialBytes, dirtyBytes } = value ?? { initialBytes: -1, dirtyBytes: -1 };
    check.that(initialBytes >= 0 && dirtyBytes >= 0, `precopy info of ${initialBytes} and ${dirtyBytes} bytes`);
  }

  /** Whatever has happened: after a reset the device can be saved, and what is saved can be restored. */
  finish(): void {
    [this.#part, this.#steps] = ['the finish', 0];
    inStep(
      'the finish',
      this.#believed(),
      () => this.#accesses(),
      () => this.#finish(),
    );
  }

  #finish(): void {
    this.#injected = undefined;
    this.run({ do: 'reset' });
    this.run({ do: 'state', target: V2.PRE_COPY });
    for (let n = 0; n < 5; n += 1) this.run({ do: 'read', bytes: 3000 });
    this.run({ do: 'state', target: V2.STOP_COPY });
    for (let before = -1; before !== this.#received.length;) {
      before = this.#received.length;
      this.run({ do: 'read', bytes: 5000 });
    }
    const target = v1Sim(this.#spec.replace('seed=3', 'seed=4'));
    const { segmentation } = this.#conditions;
    const there = presentV2(target.device, { segmentation });
    const session = there.setState(V2.RESUMING);
    const bytes = join(this.#received);
    for (let at = 0; at < bytes.length;) at += session?.write(bytes.subarray(at, at + 5000)) ?? Number.NaN;
    there.setState(V2.RUNNING);
    check.bytes('memory of the destination', target.bar, this.#sim.bar);
  }
}

function wordsOf(step: V2Step): string[] {
  const { do: what, ...more } = step;
  if (step.do === 'state') return ['state', names.find((name) => V2[name] === step.target) ?? `${step.target}`];
  return [what, ...Object.entries(more).map(([name, value]) => `${name} ${value}`)];
}

function streamOf(spec: string, segmentation: 'raw' | 'framed'): Uint8Array {
  const session = presentV2(v1Sim(spec).device, { segmentation }).setState(V2.STOP_COPY);
  const pieces: Uint8Array[] = [];
  for (;;) {
    const into = new Uint8Array(100_000);
    const length = session?.read(into) ?? 0;
    if (length === 0) return join(pieces);
    pieces.push(into.subarray(0, length));
  }
}

function deframed(stream: Uint8Array, segmentation: 'raw' | 'framed'): Uint8Array {
  if (segmentation === 'raw') return stream;
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < stream.length;) {
    const length = Number(view.getBigUint64(at + 8, true));
    pieces.push(stream.subarray(at + HEADER, at + HEADER + length));
    at += HEADER + length;
  }
  return join(pieces);
}
