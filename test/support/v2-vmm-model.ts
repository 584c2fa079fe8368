import { expect } from 'vitest';
import { PRESENT_V2_STATE_SIZE, presentV2 } from '../../src/bridge/index.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { V2, type V2State, type V2StateName } from '../../src/v2/states.ts';
import { join, noise } from './bytes.ts';
import { chance } from './chance.ts';
import { failure, notYet, outcome } from './errno.ts';
import { QEMU_WROTE } from './qemu-writes.ts';
import { v1Sim } from './sims.ts';
import { SpyV1 } from './spy-v1.ts';
import { vector } from './vectors.ts';
import { v1User } from './v1-user.ts';
import type { V2Conditions, V2Step } from './v2-vmm-steps.ts';

/*
 * A model of what a new VMM may expect of presentV2 over a simulated v1 driver: the kernel's own answers for the state
 * machine, the v1 protocol's account of which buffers were consumed, and nothing of the bridge.
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
  #device: V2Device;
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

  constructor(conditions: V2Conditions) {
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
    const events = {
      state: (v1: number): void => {
        expect(v1).toBe(v1User(this.#sim.device).state());
      },
    };
    return presentV2(this.#spy, { segmentation, offerP2P, state: this.#memory, carry: this.#carry, events });
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
        if (this.#old !== undefined) expect(this.#try(() => this.#old?.read(new Uint8Array(9))).answer).not.toBe('OK');
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
    if (answer === 'OK') expect(nameOf(value ?? -1)).toBe(this.#state);
    else expect(answer).toBe('EREMOTEIO');
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
    expect(v1).toBe(this.#owing ? 4 : expected[this.#state]);
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
      expect(['EINVAL', 'EREMOTEIO']).toContain(answer);
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
    expect(answer).toBe('OK');
    if (from === to) {
      expect(session).toBeUndefined();
      this.#look();
      return;
    }
    const begins = kindOf(to) !== 'none' && kindOf(to) !== kindOf(from);
    this.#enter(to);
    if (begins) {
      expect(session).toBeDefined();
      this.#session = session;
    } else expect(session).toBeUndefined();
    this.#look();
  }

  /** Nothing is written that no QEMU ever wrote, and a device that its user believes stopped does not run in between. */
  #checkChanges(from: V2StateName, to: V2StateName): void {
    const runs = (state: V2StateName): boolean => state === 'RUNNING' || state === 'PRE_COPY';
    for (const change of this.#spy.changes) {
      expect(QEMU_WROTE.has(change), change).toBe(true);
      if (!runs(from) && !runs(to)) expect(change).not.toMatch(/>[13]$/);
    }
  }

  /** From RESUMING, or from a stop that is shown over it: a v1 driver has only the way to RUNNING. */
  #leaveLoad(from: V2StateName, to: V2StateName, answer: string): void {
    const savesOrLoads = to === 'STOP_COPY' || to === 'PRE_COPY_P2P' || to === 'RESUMING';
    if (savesOrLoads || (from === 'RESUMING' && this.#broken())) expect(answer).toBe('EINVAL');
    else if (to === 'STOP' || to === 'RUNNING_P2P') {
      expect(answer).toBe('OK');
      // what was loaded is still with the driver, and a refusal of 4 to 1 will lead back to it
      if (this.#session !== undefined) this.#old = this.#session;
      this.#session = undefined;
      this.#state = to;
      this.#owing = true;
    } else if (this.#complete()) {
      expect(answer).toBe('OK');
      this.#enter(to);
      this.#session = this.#device.openSession();
    } else {
      expect(answer).toBe('EINVAL');
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

  /** `inPlace`: from the memory where the session shows it, where it does. */
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
      expect(answer).toBe('EBADF');
      return;
    }
    if (answer === 'OK' && length > 0) {
      this.#received.push(into.slice(0, length));
      return;
    }
    if (answer === 'EREMOTEIO') return;
    expect(answer).toBe(this.#state === 'STOP_COPY' ? 'OK' : 'ENOMSG');
    // the end, for now or for good: everything that was shown has been handed out and consumed
    const consumed = this.#consumed();
    expect(this.#payload().length).toBe(consumed.reduce((sum, buffer) => sum + buffer.length, 0));
    if (this.#state === 'STOP_COPY' && consumed.length > 0) expect(consumed.at(-1)?.[4]).toBe(3);
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
      expect(payload.length).toBeGreaterThanOrEqual(consumed.length);
      expect(Buffer.compare(payload.subarray(0, consumed.length), consumed)).toBe(0);
      expect(payload.length - consumed.length).toBeLessThanOrEqual(SECTION);
    }
    if (kindOf(this.#state) === 'resuming') {
      const loaded = join(this.#spy.loaded.slice(this.#loadedBefore));
      const expected = deframed(this.#stream, this.#conditions.segmentation);
      expect(Buffer.compare(loaded, expected.subarray(0, loaded.length))).toBe(0);
    }
  }

  /** `inPlace`: into the memory that the session has for it, where it has some. */
  #write(bytes: number, inPlace: boolean): void {
    if (this.#session === undefined || kindOf(this.#state) === 'none') return;
    const session = this.#session;
    const piece = this.#stream.subarray(this.#written, this.#written + bytes);
    if (piece.length === 0) return;
    const { answer, value: length = 0 } = this.#try(() => {
      const room = inPlace ? session.room?.(piece.length) : undefined;
      if (room === undefined) return session.write(piece);
      expect(room.length).toBeLessThanOrEqual(piece.length);
      room.set(piece.subarray(0, room.length));
      session.fill?.(room.length);
      return room.length;
    });
    if (kindOf(this.#state) === 'saving') {
      expect(answer).toBe('EBADF');
      return;
    }
    if (answer === 'EREMOTEIO') {
      this.#resync();
      return;
    }
    expect(answer).toBe('OK');
    expect(length).toBeGreaterThan(0);
    this.#written += length;
  }

  #info(): void {
    const session = this.#session;
    if (session === undefined || kindOf(this.#state) === 'none') return;
    const { answer, value } = this.#try(() => session.precopyInfo());
    if (answer === 'EREMOTEIO') return;
    if (kindOf(this.#state) === 'resuming') expect(answer).toBe('ENOTTY');
    else if (this.#state === 'STOP_COPY') expect(answer).toBe('EINVAL');
    else {
      expect(answer).toBe('OK');
      expect((value?.initialBytes ?? -1) >= 0 && (value?.dirtyBytes ?? -1) >= 0).toBe(true);
    }
  }

  /** Whatever has happened: after a reset the device can be saved, and what is saved can be restored. */
  finish(): void {
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
    expect(Buffer.compare(target.bar, this.#sim.bar)).toBe(0);
  }
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
