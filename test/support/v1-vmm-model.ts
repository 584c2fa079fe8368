import { PRESENT_V1_STATE_SIZE, presentV1 } from '../../src/bridge/index.ts';
import { formatSpec } from '../../src/sim/spec.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1 } from '../../src/v1/states.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2, v2StateName, type V2State } from '../../src/v2/states.ts';
import { noise } from './bytes.ts';
import { chance } from './chance.ts';
import { failure, notYet, outcome } from './errno.ts';
import { check, Finding, inStep } from './finding.ts';
import { v2Sim } from './sims.ts';
import { SpyV2 } from './spy-v2.ts';
import { v1StateText, v1User, writeRegister } from './v1-user.ts';
import type { V1Step, Weather } from './v1-vmm-steps.ts';

/*
 * A model of what an old VMM may expect of presentV1 over a simulated v2 driver: it knows the v1 protocol and what the
 * driver's stream is, and nothing of the bridge. Every step compares and throws a Finding; the steps are random.
 */

const SECTION = 4096;
const allowed: Readonly<Record<number, readonly number[]>> = {
  0: [0, 1, 2, 3, 4],
  1: [0, 1, 2, 3, 4],
  2: [0, 1, 2],
  3: [0, 1, 2, 3],
  4: [0, 1, 4],
  6: [],
};
type Kind = 'none' | 'saving' | 'resuming';

/** What is put between the parts, to see what the model says of it: above the bridge, and between it and the spy. */
export interface V1Between {
  above?(device: V1Device): V1Device;
  below?(device: V2Device): V2Device;
}

export class V1VmmModel {
  readonly #sim: ReturnType<typeof v2Sim>;
  /** The driver's calls that said "not yet" in the last try of an access. */
  readonly #delayed = new Set<string>();
  readonly #spy: SpyV2;
  readonly #weather: Weather;
  readonly #draw: (below: number) => number;
  readonly #section = new Uint8Array(SECTION);
  readonly #memory = new Uint8Array(PRESENT_V1_STATE_SIZE);
  readonly #stream: Uint8Array;
  readonly #setupLength: number;
  readonly #hasPreCopy: boolean;
  readonly #between: V1Between;
  #device: V1Device;
  /** Which part of the model takes steps, and how many it has taken. */
  #part = 'the steps';
  #steps = 0;
  #injected: 'read' | 'write' | 'setState' | undefined;
  /** What the user believes: the session it is in, what it has of it, the buffer that it was shown. */
  #session: Kind = 'none';
  #lost: Kind = 'none';
  /** A data register has said that the session is lost. */
  #told = false;
  /** A transaction was refused: the device has not got its state, and does not leave RESUMING but by a reset. */
  #spoilt = false;
  #virtual = false;
  #received: Uint8Array[] = [];
  #count = 0;
  #taken: Uint8Array | undefined;
  #loaded = 0;

  constructor(spec: string, faults: string, conditions: Weather, between: V1Between = {}) {
    this.#between = between;
    this.#sim = v2Sim(spec + faults);
    this.#weather = conditions;
    this.#draw = chance(conditions.seed);
    const twin = v2Sim(spec).device;
    this.#stream = new Uint8Array(twin.stopCopyLength());
    twin.setState(V2.STOP_COPY)?.read(this.#stream);
    this.#setupLength = this.#stream.length - this.#payload().length;
    this.#hasPreCopy = (twin.migrationFlags & 4) !== 0;
    this.#spy = new SpyV2(this.#sim.device, {
      enomsg: conditions.enomsg,
      before: (call) => this.#strike(call),
      limit: (_, length) => (conditions.seed !== 0 && this.#draw(2) === 0 ? 1 + this.#draw(length) : length),
    });
    this.#device = this.#bridge();
  }

  #payload(): Uint8Array {
    return this.#sim.spec.driver === 'mtty' ? new Uint8Array(36 * this.#sim.spec.ports) : this.#sim.bar;
  }

  #bridge(): V1Device {
    const { onError } = this.#weather;
    const { above, below } = this.#between;
    const device = presentV1(below?.(this.#spy) ?? this.#spy, {
      dataSection: this.#section,
      bufferSize: SECTION / 2,
      state: this.#memory,
      onError,
    });
    return above?.(device) ?? device;
  }

  get #user(): ReturnType<typeof v1User> {
    return v1User(this.#device);
  }

  #strike(call: string): void {
    if (this.#injected === call) {
      this.#injected = undefined;
      throw failure('EREMOTEIO');
    }
    if (this.#weather.seed === 0 || call === 'reset' || call === 'stopCopyLength') return;
    const dice = this.#draw(8);
    if (dice === 0) {
      this.#delayed.add(call);
      throw notYet();
    }
    if (dice === 1 && (call === 'read' || call === 'write')) throw failure('EINTR', 'ERR_SYSCALL');
  }

  /** Repeats an access while the answer is "not yet". */
  #try<T>(access: () => T): { readonly answer: string; readonly value: T | undefined; readonly tries: number } {
    for (let tries = 1; ; tries += 1) {
      let value: T | undefined;
      this.#delayed.clear();
      const answer = outcome(() => {
        value = access();
      });
      if (answer !== 'EAGAIN') return { answer, value, tries };
    }
  }

  run(step: V1Step): void {
    this.#steps += 1;
    const words = [`step ${this.#steps} of ${this.#part}:`, ...wordsOf(step)].join(' ');
    inStep(
      words,
      this.#believed(),
      () => this.#spy.log,
      () => this.#do(step),
    );
  }

  #believed(): string {
    return [
      `device_state ${v1StateText(this.#shown())}${this.#virtual ? ' without a session of the driver' : ''}`,
      `the driver in ${v2StateName(this.#spy.getState())}`,
      `session: ${this.#session}`,
      ...(this.#session === 'saving' ? [`${this.#count} bytes received and acknowledged`] : []),
      ...(this.#taken === undefined ? [] : [`${this.#taken.length} bytes shown and not acknowledged`]),
      ...(this.#session === 'resuming' ? [`${this.#loaded} of ${this.#stream.length} bytes loaded`] : []),
      ...(this.#spoilt ? ['a transaction was refused'] : []),
      ...(this.#lost === 'none' ? [] : [`a ${this.#lost} session lost, ${this.#told ? '' : 'not '}told`]),
      ...(this.#injected === undefined ? [] : [`the next ${this.#injected} of the driver fails`]),
    ].join(', ');
  }

  #do(step: V1Step): void {
    switch (step.do) {
      case 'state':
        this.#writeState(step.value);
        break;
      case 'pending':
        this.#pending();
        break;
      case 'take':
        this.#take();
        break;
      case 'load':
        this.#load(step.bytes);
        break;
      case 'look':
        this.#notice();
        this.#checkState(this.#shown());
        break;
      case 'replace':
        this.#device = this.#bridge();
        break;
      case 'guest':
        this.#sim.bar.set(noise(Math.min(64, this.#sim.bar.length), step.seed));
        break;
      case 'quiesce':
        this.#quiesce();
        break;
      case 'reset':
        this.#reset();
        break;
      case 'resetBehind':
        this.#spy.reset();
        break;
      case 'break':
        this.#spy.break();
        break;
      case 'inject':
        this.#injected = step.call;
        break;
    }
    this.#checkBounds();
  }

  /** A guest that reboots: its VMM resets the device, and the VMM's migration does not know. */
  #reset(): void {
    const moved = this.#count > 0 || this.#taken !== undefined || this.#loaded > 0;
    if (this.#session !== 'none' && moved) this.#lose('none');
    else if (this.#told) this.#lost = 'none';
    this.#device.reset();
    this.#forget();
    this.#virtual = false;
  }

  /** The supervisor brings the device into its P2P state, if it has one. */
  #quiesce(): void {
    const now = this.#spy.getState();
    const target = now === V2.RUNNING ? V2.RUNNING_P2P : now === V2.PRE_COPY ? V2.PRE_COPY_P2P : undefined;
    if (target !== undefined && (this.#spy.migrationFlags & 2) !== 0) outcome(() => this.#sim.device.setState(target));
  }

  /** What the bridge finds out before it answers anything. */
  #notice(): void {
    if (this.#spy.getState() === V2.ERROR && this.#weather.onError === 'reset') {
      // the bridge resets it; here only its consequences are drawn
      this.#virtual = false;
      this.#lose('none');
      return;
    }
    this.#lose(kindOf(this.#spy.getState()));
    if (![V2.RUNNING, V2.RUNNING_P2P].some((running) => running === this.#spy.getState())) this.#virtual = false;
  }

  #lose(now: Kind): void {
    if (this.#session === 'none' || this.#session === now) return;
    this.#lost = this.#session;
    this.#told = false;
    this.#forget();
  }

  #forget(): void {
    this.#session = 'none';
    this.#received = [];
    this.#count = 0;
    this.#taken = undefined;
    this.#loaded = 0;
    this.#spoilt = false;
  }

  /** device_state as the tables of the protocol have it. */
  #shown(): number {
    const now = this.#spy.getState();
    if (now === V2.ERROR && this.#weather.onError === 'reset') return 1;
    if (this.#virtual) return 3;
    return [6, 0, 1, 2, 4, 1, 3, 3][now] ?? Number.NaN;
  }

  #writeState(value: number): void {
    this.#notice();
    const before = this.#shown();
    const { answer, tries } = this.#try(() => this.#user.setState(value));
    const change = `device_state from ${v1StateText(before)} to ${v1StateText(value)}`;
    if (allowed[before]?.includes(value) !== true) {
      check.same(`${change}, which is not allowed`, answer, 'EINVAL');
      this.#checkState(before);
      return;
    }
    if (this.#lost !== 'none' && !(this.#lost === 'saving' && value === 0)) {
      const refused = this.#lost === 'resuming' || value !== 1;
      this.#lost = 'none';
      if (refused) {
        check.same(`${change}, after a session was lost`, answer, 'EIO');
        this.#checkState(before);
        return;
      }
    }
    if (this.#spoilt && before === 4 && value !== 4) {
      check.same(`${change}, after a transaction was refused`, answer, 'EREMOTEIO');
      this.#checkState(4);
      return;
    }
    if (answer === 'OK') this.#entered(before, value);
    else if (answer === 'EBUSY' || answer === 'ENXIO') this.#failedOnItsWay(before, answer === 'ENXIO', tries > 1);
    else this.#refused(before, value, answer);
  }

  #entered(before: number, value: number): void {
    this.#virtual = value === 3 && !this.#hasPreCopy;
    const asked = [V2.STOP, V2.RUNNING, V2.STOP_COPY, this.#virtual ? V2.RUNNING : V2.PRE_COPY, V2.RESUMING][value];
    const now = this.#spy.getState();
    check.same(`the driver after device_state ${v1StateText(value)}`, v2StateName(now), asked && v2StateName(asked));
    this.#checkState(value);
    if (before === 4 && value !== 4) check.same('bytes loaded when it runs', this.#loaded, this.#stream.length);
    const kind = kindOf(now);
    if (kind !== this.#session) {
      this.#forget();
      this.#session = kind;
    }
  }

  /** A fault of the SPEC struck some hop: EBUSY leaves the device where it is, ENXIO in ERROR. */
  #failedOnItsWay(before: number, fatal: boolean, repeated: boolean): void {
    const now = kindOf(this.#spy.getState());
    const running = [V2.RUNNING, V2.RUNNING_P2P].some((state) => state === this.#spy.getState());
    this.#virtual = this.#virtual && running && !fatal;
    if (fatal) this.#checkState(this.#weather.onError === 'reset' ? 1 : 6);
    const wayBackFailed = this.#spy.log.slice(-2).every((line) => line.endsWith('failed'));
    const comesBack = this.#session === 'none' && now === 'none' && !repeated && !wayBackFailed;
    if (comesBack && !fatal) this.#checkState(before);
    this.#checkState(this.#shown());
    if (now !== this.#session) this.#forget(); // the user was told: nothing is lost
    this.#session = now;
  }

  #refused(before: number, value: number, answer: string): void {
    const incomplete = before === 4 && value !== 4 && this.#loaded < this.#stream.length;
    const change = `device_state from ${v1StateText(before)} to ${v1StateText(value)}`;
    check.same(change, answer, incomplete && answer !== 'EREMOTEIO' ? 'EINVAL' : 'EREMOTEIO');
    this.#checkState(before);
    check.same("the driver's session after a refusal", kindOf(this.#spy.getState()), this.#session);
  }

  #pending(): void {
    this.#notice();
    const { answer, value: pending = Number.NaN } = this.#try(() => this.#user.pending());
    if (this.#lost !== 'none') {
      check.same('a data register after a session was lost', answer, 'EIO');
      this.#told = true;
      return;
    }
    // also if the answer is an error: what was shown is consumed by asking
    if (this.#taken !== undefined) {
      this.#received.push(this.#taken);
      this.#count += this.#taken.length;
      this.#taken = undefined;
    }
    this.#checkReceived();
    if (answer !== 'OK') {
      check.same('pending_bytes', answer, 'EREMOTEIO');
      check.same('pending_bytes fails in a session', this.#session, 'saving');
      return;
    }
    const shown = this.#shown();
    // a driver that does not say yet what pre-copy has left keeps nobody waiting: it may be the whole state
    const isUnsaid = shown === 3 && this.#delayed.has('precopyInfo');
    const staged = this.#spy.bytes('out').length - this.#count;
    const left = isUnsaid ? staged + this.#stream.length : this.#end(shown) - this.#count;
    check.same(`pending_bytes in ${v1StateText(shown)}`, pending, shown === 2 ? left : Math.max(0, left));
  }

  /** How many bytes there are in all to be had in this device_state. */
  #end(shown: number): number {
    if (shown === 2) return this.#stream.length;
    return shown === 3 && !this.#virtual ? this.#setupLength : 0;
  }

  #take(): void {
    this.#notice();
    const { answer, value: bytes = new Uint8Array(0) } = this.#try(() => this.#user.buffer());
    if (this.#lost !== 'none') {
      check.same('a data register after a session was lost', answer, 'EIO');
      this.#told = true;
      return;
    }
    if (answer !== 'OK') {
      check.same('the look at a buffer', answer, 'EREMOTEIO');
      check.same('the look at a buffer fails in a session', this.#session, 'saving');
      check.that(this.#taken === undefined, 'the second look at a buffer fails, the first did not');
      return;
    }
    if (this.#taken !== undefined) {
      check.bytes('the second look at a buffer that was not acknowledged', bytes, this.#taken);
      return;
    }
    const shown = this.#shown();
    const left = Math.max(0, this.#end(shown) - this.#count);
    const problem = `${bytes.length} bytes are shown in ${v1StateText(shown)}, where ${left} are left`;
    const isLate = shown === 3 && bytes.length === 0 && this.#delayed.has('read');
    check.that(isLate || bytes.length > 0 === left > 0, problem);
    this.#taken = bytes.length > 0 ? bytes : undefined;
  }

  /** A transaction of the next bytes of a state that the device takes. */
  #load(length: number): void {
    this.#notice();
    const piece = this.#stream.subarray(this.#loaded, this.#loaded + length);
    if (this.#session !== 'saving') this.#device.write(DATA_OFFSET, piece); // while saving, it would overwrite what was shown
    const { answer } = this.#try(() => writeRegister(this.#device, 'data_size', piece.length));
    if (this.#lost !== 'none') {
      check.same('a data register after a session was lost', answer, 'EIO');
      this.#told = true;
      return;
    }
    if (this.#session !== 'resuming') {
      check.same('a transaction outside of RESUMING', answer, 'EINVAL');
      return;
    }
    check.oneOf('a transaction', answer, this.#spoilt ? ['EREMOTEIO'] : ['OK', 'EREMOTEIO']);
    if (answer !== 'OK') this.#spoilt = true;
    const taken = this.#spy.bytes('in');
    if (answer === 'OK') check.same('bytes that the driver has taken', taken.length, this.#loaded + piece.length);
    this.#loaded = taken.length;
    check.bytes('what the driver has taken', taken, this.#stream.subarray(0, taken.length));
  }

  /** What the VMM has is what the driver gave, from its first byte on. */
  #checkReceived(): void {
    if (this.#session !== 'saving') return;
    const produced = this.#spy.bytes('out');
    check.bytes('what the VMM has of what the driver gave', this.#received, produced.subarray(0, this.#count));
  }

  #checkState(expected: number): void {
    check.same('device_state', v1StateText(this.#user.state()), v1StateText(expected));
  }

  /** Nothing is read ahead that the data section cannot hold. */
  #checkBounds(): void {
    if (this.#session !== 'saving' || kindOf(this.#spy.getState()) !== 'saving') return;
    const ahead = this.#spy.bytes('out').length - this.#count;
    check.that(ahead <= SECTION, `${ahead} bytes are read ahead, and the data section holds ${SECTION}`);
  }

  /** Whatever has happened: after a reset the device can be saved, and what is saved can be restored. */
  finish(): void {
    [this.#part, this.#steps] = ['the finish', 0];
    inStep(
      'the finish',
      this.#believed(),
      () => this.#spy.log,
      () => this.#finish(),
    );
  }

  #finish(): void {
    this.#injected = undefined;
    this.run({ do: 'reset' });
    const user = this.#user;
    this.#try(() => user.setState(V1.RUNNING)); // as after a cancel: what was lost is given up
    this.#lost = 'none';
    const all = (access: () => unknown): void => {
      for (let tries = 0; tries < 20; tries += 1) {
        const { answer } = this.#try(access);
        if (answer === 'OK') return;
        check.oneOf('a change of device_state', answer, ['EBUSY', 'ENXIO']);
        if (answer === 'ENXIO') this.#device.reset();
      }
      throw new Finding('the device never gets ready');
    };
    all(() => user.setState(V1.PRE_COPY));
    this.#entered(1, 3);
    for (const value of [3, 2]) {
      if (value === 2) {
        all(() => user.setState(user.state() === 1 ? 3 : 2)); // 1 after a fault that was fatal
        all(() => user.setState(V1.STOP_COPY));
        if (kindOf(this.#spy.getState()) !== this.#session || this.#spy.bytes('out').length < this.#count)
          this.#forget();
        this.#entered(3, 2);
      }
      for (let more = true; more;) {
        this.run({ do: 'pending' });
        this.run({ do: 'take' });
        more = this.#taken !== undefined;
      }
    }
    check.same('bytes of a whole save', this.#count, this.#stream.length);

    const target = v2Sim(formatSpec({ ...this.#sim.spec, seed: 0, fault: [] }));
    const there = v1User(presentV1(target.device, { dataSection: new Uint8Array(SECTION) }));
    there.setState(V1.RESUMING);
    for (const buffer of this.#received) there.load(buffer);
    there.setState(V1.RUNNING);
    check.bytes('memory of the destination', target.bar, this.#sim.bar);
  }
}

function kindOf(now: V2State): Kind {
  if (now === V2.RESUMING) return 'resuming';
  return now === V2.STOP_COPY || now === V2.PRE_COPY || now === V2.PRE_COPY_P2P ? 'saving' : 'none';
}

function wordsOf(step: V1Step): string[] {
  const { do: what, ...more } = step;
  if (step.do === 'state') return ['device_state', v1StateText(step.value)];
  return [what, ...Object.entries(more).map(([name, value]) => `${name} ${value}`)];
}
