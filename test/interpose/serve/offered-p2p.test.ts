import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PRESENT_V2_LIVE_SIZE, PRESENT_V2_STATE_SIZE } from '../../../src/bridge/present-v2-state.ts';
import { presentV2 } from '../../../src/bridge/present-v2.ts';
import { OfferedP2P } from '../../../src/interpose/serve/offered-p2p.ts';
import { isNotReady } from '../../../src/error.ts';
import type { Ledger } from '../../../src/interpose/memory/ledger.ts';
import { p2p_state } from '../../../src/interpose/memory/p2p-state.ts';
import type { V1Device } from '../../../src/v1/device.ts';
import type { V2Device } from '../../../src/v2/device.ts';
import { V2, v2StateName, type V2State } from '../../../src/v2/states.ts';
import { noise } from '../../support/bytes.ts';
import { failure, notYet, outcome } from '../../support/errno.ts';
import { readSome, readToEnd } from '../../support/presented.ts';
import { TapeV1 } from '../../support/tape-v1.ts';

const SECTION = 4096;
const PRE_COPY_DATA = noise(100, 1);
const STATE = noise(300, 2);

const { STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P } = V2;

class Killed extends Error {}

/** A device's arena, and what counts at once. */
class Memory {
  readonly p2p = new Uint8Array(p2p_state.size);
  readonly state = new Uint8Array(PRESENT_V2_STATE_SIZE);
  readonly carry = new Uint8Array(SECTION);
  readonly live = new Uint8Array(PRESENT_V2_LIVE_SIZE);
  readonly #committed = { p2p: new Uint8Array(p2p_state.size), state: new Uint8Array(PRESENT_V2_STATE_SIZE) };

  commit(): void {
    for (const part of ['p2p', 'state'] as const) this.#committed[part].set(this[part]);
  }

  revert(): void {
    for (const part of ['p2p', 'state'] as const) this[part].set(this.#committed[part]);
  }
}

interface HostOptions {
  /** The process that each device is of. */
  readonly processes?: readonly number[];
  /** The access to a driver at which the supervisor is killed, and whether it is carried out. */
  readonly killAt?: number;
  readonly after?: boolean;
}

/** A v2 VMM's devices with v1 drivers of the kernel, as the supervisor has them. */
class Host {
  readonly steps: string[] = [];
  readonly warnings: string[] = [];
  readonly committed: number[] = [];
  readonly drivers: TapeV1[];
  readonly closed = new Set<number>();
  now = 1000;
  accesses = 0;
  p2p!: OfferedP2P;
  devices!: V2Device[];
  readonly #memory: Memory[];
  readonly #options: HostOptions;

  constructor(count: number, options: HostOptions = {}) {
    this.drivers = Array.from(
      { length: count },
      () => new TapeV1({ preCopy: [PRE_COPY_DATA], stopCopy: [STATE], section: SECTION }),
    );
    this.#memory = this.drivers.map(() => new Memory());
    this.#options = options;
    this.begin();
    this.#commit(this.#memory.keys());
  }

  /** A supervisor begins, the first or a successor. */
  begin(): void {
    const { processes = [] } = this.#options;
    this.p2p = new OfferedP2P({
      commit: (ledgers) => {
        this.committed.push(...ledgers.map(({ index }) => index - 10));
        this.#commit(ledgers.map(({ index }) => index - 10));
      },
      warn: (message) => this.warnings.push(message),
      clock: () => this.now,
      processOf: (tid) => processes[tid - 1] ?? 1,
    });
    this.devices = this.#memory.map(({ p2p, ...memory }, n) => {
      const ledger = { index: 10 + n } as Ledger;
      const device = presentV2(this.#driver(n), { ...memory, offerP2P: true });
      const peer = { name: String(n), ledger, device, enter: () => !this.closed.has(n), leave: () => {} };
      const joined = this.p2p.join(peer, p2p);
      this.p2p.usedBy(ledger, n + 1);
      return joined;
    });
  }

  /** The driver as it is reached from a process that may be killed. */
  #driver(n: number): V1Device {
    const tape = this.drivers[n] as TapeV1;
    const { device } = tape;
    const access = (carryOut: () => void): void => {
      this.accesses += 1;
      const { killAt, after = false } = this.#options;
      if (this.accesses === killAt && !after) throw new Killed();
      carryOut();
      if (this.accesses === killAt) throw new Killed();
    };
    return {
      regionSize: device.regionSize,
      dataSection: device.dataSection,
      mapped: undefined,
      read: (offset, into) => access(() => device.read(offset, into)),
      write: (offset, from) =>
        access(() => {
          const { state } = tape;
          device.write(offset, from);
          if (tape.state !== state) this.steps.push(`${n} ${tape.state}`);
        }),
      reset: () => {
        device.reset();
        this.steps.push(`${n} reset`);
      },
    };
  }

  #commit(places: Iterable<number>): void {
    for (const place of places) this.#memory[place]?.commit();
  }

  /** A call on a device: a successor repeats it if the supervisor is killed. One that has to wait is not committed. */
  call<T>(n: number, serve: (device: V2Device) => T): T {
    for (;;) {
      let error: unknown;
      try {
        return serve(this.devices[n] as V2Device);
      } catch (thrown) {
        error = thrown;
        if (!(thrown instanceof Killed)) throw thrown;
      } finally {
        const counts = !(error instanceof Killed) && !isNotReady(error);
        if (counts) this.#commit([n, ...this.p2p.takeChanged().map(({ index }) => index - 10)]);
      }
      this.kill();
    }
  }

  /** A successor begins with what was committed. */
  kill(): void {
    for (const memory of this.#memory) memory.revert();
    this.begin();
  }

  set(n: number, state: V2State): void {
    this.call(n, (device) => void device.setState(state));
  }

  /** Requests of all devices, one after the other. */
  all(order: readonly number[], ...states: readonly V2State[]): void {
    for (const state of states) for (const n of order) this.set(n, state);
  }

  shown(): string[] {
    return [...this.devices.keys()].map((n) => this.call(n, (device) => v2StateName(device.getState())));
  }

  /** device_state of each driver. */
  states(): number[] {
    return this.drivers.map(({ state }) => state);
  }

  takeSteps(): string[] {
    return this.steps.splice(0);
  }
}

describe('OfferedP2P', () => {
  it('stops the devices of a VMM in a row, and starts them in a row, wherever their VMM believes them', () => {
    const host = new Host(3);
    host.all([0, 1, 2], PRE_COPY);
    expect(host.takeSteps()).toEqual(['0 3', '1 3', '2 3']);
    host.set(2, PRE_COPY_P2P);
    host.set(1, PRE_COPY_P2P);
    expect(host.takeSteps()).toEqual([]);
    expect(host.shown()).toEqual(['PRE_COPY', 'PRE_COPY_P2P', 'PRE_COPY_P2P']);
    host.set(0, PRE_COPY_P2P);
    expect(host.takeSteps()).toEqual(['1 2', '2 2', '0 2']);
    expect(host.shown()).toEqual(['PRE_COPY_P2P', 'PRE_COPY_P2P', 'PRE_COPY_P2P']);
    host.all([2, 1, 0], STOP_COPY);
    host.all([2, 1, 0], STOP);
    expect(host.takeSteps()).toEqual(['2 0', '1 0', '0 0']);

    host.all([0, 1, 2], RUNNING_P2P);
    host.set(0, RUNNING);
    host.set(1, RUNNING);
    expect(host.takeSteps()).toEqual([]);
    expect(host.shown()).toEqual(['RUNNING', 'RUNNING', 'RUNNING_P2P']);
    host.set(2, RUNNING);
    expect(host.takeSteps()).toEqual(['2 1', '0 1', '1 1']);
    host.all([2, 1, 0], RUNNING_P2P, STOP);
    expect(host.takeSteps()).toEqual(['1 0', '2 0', '0 0']);
    expect([host.warnings, host.p2p.work()]).toEqual([[], Infinity]);
  });

  it('loads all devices of a destination before one of them runs', () => {
    const host = new Host(2);
    host.all([0, 1], RESUMING);
    for (const n of [0, 1]) host.call(n, (device) => device.openSession()?.write(STATE));
    host.takeSteps();
    host.all([0, 1], RUNNING_P2P, RUNNING);
    expect(host.takeSteps()).toEqual(['1 1', '0 1']);
    expect(host.drivers.map(({ loaded }) => loaded)).toEqual([[STATE], [STATE]]);
    expect(host.shown()).toEqual(['RUNNING', 'RUNNING']);
  });

  it('has the saving session go on while a stop is put off', () => {
    const host = new Host(2);
    const session = host.call(0, (device) => device.setState(PRE_COPY));
    host.set(1, PRE_COPY);
    host.set(0, PRE_COPY_P2P);
    expect(host.drivers[0]?.state).toBe(3);
    expect(session?.precopyInfo()).toEqual({ initialBytes: 100, dirtyBytes: 0 });
    const pieces = [readSome(session, 60)];
    host.set(1, PRE_COPY_P2P);
    host.all([0, 1], STOP_COPY);
    expect([...pieces, ...readToEnd(session)]).toBeBytes([PRE_COPY_DATA, STATE]);
  });

  it('begins a session that is asked for with a P2P state, and ends one that is not', () => {
    const host = new Host(2);
    const session = host.call(0, (device) => device.setState(PRE_COPY_P2P));
    expect(session?.precopyInfo()).toEqual({ initialBytes: 100, dirtyBytes: 0 });
    expect([host.shown(), host.states()]).toEqual([
      ['PRE_COPY_P2P', 'RUNNING'],
      [3, 1],
    ]);
    host.set(0, RUNNING_P2P);
    expect(outcome(() => session?.precopyInfo())).toBe('EINVAL');
    expect([host.shown(), host.states()]).toEqual([
      ['RUNNING_P2P', 'RUNNING'],
      [1, 1],
    ]);
  });

  it.each([
    { was: [PRE_COPY, PRE_COPY_P2P], asked: RUNNING, steps: ['0 1'] },
    { was: [PRE_COPY, PRE_COPY_P2P], asked: PRE_COPY, steps: [] },
    { was: [PRE_COPY, PRE_COPY_P2P], asked: STOP_COPY, steps: ['0 2'] },
    { was: [PRE_COPY, PRE_COPY_P2P], asked: STOP, steps: ['0 1', '0 0'] },
    { was: [RUNNING_P2P], asked: RUNNING, steps: [] },
    { was: [RUNNING_P2P], asked: PRE_COPY, steps: ['0 3'] },
    { was: [RUNNING_P2P], asked: STOP_COPY, steps: ['0 3', '0 2'] },
  ])('stops nothing later of a device that was asked for $was and then for $asked', ({ was, asked, steps }) => {
    const host = new Host(2);
    host.all([0], ...was);
    host.takeSteps();
    host.set(0, asked);
    expect(host.takeSteps()).toEqual(steps);
    expect(host.shown()[0]).toBe(v2StateName(asked));
    expect(host.p2p.work()).toBe(Infinity);
  });

  it.each([
    { asked: RUNNING_P2P, steps: [] },
    { asked: STOP, steps: [] },
    { asked: STOP_COPY, steps: ['0 2'] },
    { asked: PRE_COPY, steps: ['0 1', '0 3'] },
    { asked: RESUMING, steps: ['0 4'] },
  ])('starts nothing later of a device that was to run, and then was asked for $asked', ({ asked, steps }) => {
    const host = new Host(2);
    host.all([0, 1], RUNNING_P2P, STOP);
    host.set(0, RUNNING);
    host.takeSteps();
    host.set(0, asked);
    expect(host.takeSteps()).toEqual(steps);
    expect(host.shown()[0]).toBe(v2StateName(asked));
    expect(host.p2p.work()).toBe(Infinity);
  });

  it('stops a device whose VMM asks that of no other, after a while', () => {
    const host = new Host(3);
    host.all([0, 1], PRE_COPY, PRE_COPY_P2P);
    host.takeSteps();
    host.now += 1;
    expect(host.p2p.work()).toBe(1999);
    host.begin(); // a successor knows of it
    host.now += 1998;
    expect(host.p2p.work()).toBe(1);
    expect(host.takeSteps()).toEqual([]);
    host.now += 1;
    expect(host.p2p.work()).toBe(Infinity);
    expect(host.takeSteps()).toEqual(['0 2', '1 2']);
    expect(host.shown()).toEqual(['PRE_COPY_P2P', 'PRE_COPY_P2P', 'RUNNING']);
    expect(host.committed).toEqual([0, 1]);
    expect(host.warnings).toEqual([]);
  });

  it('starts a device whose VMM starts no other, after a while', () => {
    const host = new Host(3);
    host.all([0, 1, 2], RUNNING_P2P, STOP);
    host.all([0, 1], RUNNING);
    host.takeSteps();
    host.begin();
    expect(host.p2p.work()).toBe(1000);
    host.now += 1000;
    expect(host.p2p.work()).toBe(Infinity);
    expect(host.takeSteps()).toEqual(['0 1', '1 1']);
    expect(host.shown()).toEqual(['RUNNING', 'RUNNING', 'STOP']);
    expect(host.committed).toEqual([0, 1]);
  });

  it('stops those that were put off before a device that is stopped at once', () => {
    const host = new Host(3);
    host.set(0, RUNNING_P2P);
    host.set(1, STOP);
    expect(host.takeSteps()).toEqual(['0 0', '1 0']);
    host.set(2, STOP);
    expect(host.takeSteps()).toEqual(['2 0']);
  });

  it('heeds no device of another VMM, none that was closed, and a single one is stopped at once', () => {
    const host = new Host(3, { processes: [1, 1, 2] });
    host.closed.add(1);
    host.set(0, RUNNING_P2P);
    expect(host.states()).toEqual([0, 1, 1]);
    host.set(2, RUNNING_P2P);
    host.set(2, RUNNING);
    expect(host.states()).toEqual([0, 1, 1]);
    const alone = new Host(1);
    alone.all([0], RUNNING_P2P, RUNNING);
    expect(alone.takeSteps()).toEqual(['0 0', '0 1']);
  });

  it('starts those that have waited for one that is reset, and forgets what that one was asked', () => {
    const host = new Host(2);
    host.all([0, 1], RUNNING_P2P, STOP);
    host.set(0, RUNNING);
    host.takeSteps();
    host.call(1, (device) => device.reset());
    expect(host.takeSteps()).toEqual(['1 reset', '0 1']);
    host.set(0, RUNNING_P2P);
    host.call(0, (device) => device.reset());
    expect([host.shown(), host.p2p.work()]).toEqual([['RUNNING', 'RUNNING'], Infinity]);
  });

  it("fails a device's own request, once, if its stop has failed in another's call, and shows that it runs", () => {
    const host = new Host(2);
    host.all([0, 1], PRE_COPY);
    host.drivers[0]?.refusals.set('3 2', { error: failure('EIO', 'ERR_DEVICE') });
    host.all([0, 1], PRE_COPY_P2P);
    expect(host.states()).toEqual([3, 2]);
    expect(host.shown()).toEqual(['PRE_COPY', 'PRE_COPY_P2P']);
    expect(host.warnings).toEqual([expect.stringMatching(/^0: does not enter PRE_COPY_P2P: /)]);
    host.begin();
    expect(outcome(() => host.set(0, STOP_COPY))).toBe('EIO');
    expect(host.states()).toEqual([3, 2]);
    host.set(0, STOP_COPY);
    expect(host.states()).toEqual([2, 2]);
  });

  it.each([RESUMING, undefined])('does so if its start has failed, with device_state 4 or 6 then: %s', (then) => {
    const host = new Host(2);
    host.all([0, 1], RESUMING);
    const now = then === undefined ? { now: 6 } : {};
    host.drivers[0]?.refusals.set('4 1', { error: failure('EIO', 'ERR_DEVICE'), ...now });
    host.all([0, 1], RUNNING_P2P, RUNNING);
    expect(host.shown()).toEqual([v2StateName(then ?? V2.ERROR), 'RUNNING']);
    expect(host.p2p.work()).toBe(Infinity);
    expect(outcome(() => host.set(0, PRE_COPY))).toBe('EIO');
    host.call(0, (device) => device.reset());
    host.set(0, PRE_COPY);
    expect(host.shown()).toEqual(['PRE_COPY', 'RUNNING']);
  });

  it('does not fail a request of a device that was reset since', () => {
    const host = new Host(2);
    host.all([0, 1], RUNNING_P2P, STOP);
    host.drivers[0]?.refusals.set('0 1', { error: failure('EIO', 'ERR_DEVICE') });
    host.all([0, 1], RUNNING);
    expect(host.states()).toEqual([0, 1]);
    host.call(0, (device) => device.reset());
    host.set(0, STOP);
    expect(host.states()).toEqual([0, 1]);
  });

  it('goes on putting off what was asked, if another request of the device fails', () => {
    const host = new Host(2);
    host.all([0, 1], PRE_COPY);
    host.set(0, PRE_COPY_P2P);
    host.drivers[0]?.refusals.set('3 2', { error: failure('EIO', 'ERR_DEVICE') });
    expect(outcome(() => host.set(0, STOP_COPY))).toBe('EIO');
    expect(host.shown()).toEqual(['PRE_COPY_P2P', 'PRE_COPY']);
    host.set(1, PRE_COPY_P2P);
    expect(host.states()).toEqual([2, 2]);
  });

  it('repeats the call if a device is not ready to stop, and stops each once', () => {
    const host = new Host(3);
    host.drivers[1]?.refusals.set('1 0', { error: notYet() });
    host.set(0, RUNNING_P2P);
    host.set(1, RUNNING_P2P);
    expect(outcome(() => host.set(2, RUNNING_P2P))).toBe('EAGAIN');
    expect(host.takeSteps()).toEqual(['0 0']);
    host.set(2, RUNNING_P2P);
    expect(host.takeSteps()).toEqual(['1 0', '2 0']);
    host.kill();
    expect(host.shown()).toEqual(['RUNNING_P2P', 'RUNNING_P2P', 'RUNNING_P2P']);
    expect(host.p2p.work()).toBe(Infinity);
  });

  it('asks a device once more that is not ready when it has waited long enough', () => {
    const host = new Host(2);
    host.drivers[0]?.refusals.set('1 0', { error: notYet() });
    host.set(0, RUNNING_P2P);
    host.now += 2000;
    expect(host.p2p.work()).toBe(2000);
    expect(host.states()).toEqual([1, 1]);
    host.now += 2000;
    expect(host.p2p.work()).toBe(Infinity);
    expect(host.states()).toEqual([0, 1]);
  });

  it('stops a device without its session if that has ended behind the back of its VMM', () => {
    const host = new Host(2);
    host.all([0, 1], PRE_COPY);
    host.set(0, PRE_COPY_P2P);
    host.drivers[0]?.reset();
    expect(host.shown()).toEqual(['RUNNING_P2P', 'PRE_COPY']);
    host.set(1, PRE_COPY_P2P);
    expect(host.states()).toEqual([0, 2]);
    expect(host.devices[0]?.openSession()).toBeUndefined();
  });

  it.each([false, true])(
    'loses nothing if the supervisor is killed at any access to a driver, carried out: %s',
    (after) => {
      const migrate = (host: Host): { saved: Uint8Array[]; shown: string[] } => {
        const order = [0, 1];
        const down = order.toReversed();
        host.all(order, PRE_COPY);
        host.all(down, PRE_COPY_P2P, STOP_COPY);
        const saved = order.map((n) => {
          const pieces: Uint8Array[] = [];
          const read = (): Uint8Array => host.call(n, (device) => readSome(device.openSession(), 4096));
          for (let piece = read(); piece.length > 0; piece = read()) pieces.push(piece);
          return new Uint8Array(Buffer.concat(pieces));
        });
        const shown = host.shown();
        host.all(down, STOP);
        host.all(order, RUNNING_P2P, RUNNING);
        return { saved, shown };
      };
      const calm = new Host(2);
      migrate(calm);
      expect(calm.accesses).toBeGreaterThan(50);
      for (let killAt = 1; killAt <= calm.accesses; killAt += 1) {
        const host = new Host(2, { killAt, after });
        const { saved, shown } = migrate(host);
        const all = Buffer.concat([PRE_COPY_DATA, STATE]);
        expect(saved, `killed at ${killAt}`).toBeBuffers([all, all]);
        expect(shown).toEqual(['STOP_COPY', 'STOP_COPY']);
        expect(host.steps, `killed at ${killAt}`).toEqual(calm.steps);
        expect(host.states()).toEqual([1, 1]);
        expect([host.warnings, host.p2p.work()]).toEqual([[], Infinity]);
      }
    },
  );

  it('has no device run while another is stopped, however a VMM stops and starts them all', () => {
    const pass = fc.record({
      order: fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4, maxLength: 4 }),
      by: fc.constantFrom('pause', 'migration', 'cancelled migration', 'load'),
    });
    fc.assert(
      fc.property(fc.array(pass, { minLength: 1, maxLength: 6 }), fc.boolean(), (passes, prepares) => {
        const host = new Host(4);
        const isMixed = (): boolean => new Set(host.states().map((state) => state === 1 || state === 3)).size > 1;
        for (const { order, by } of passes) {
          const down = order.toReversed();
          const all = (devices: readonly number[], state: V2State): void => {
            for (const n of devices) {
              host.set(n, state);
              if (by !== 'load' || state !== RESUMING) expect(isMixed()).toBe(false);
              if (n === 2) host.begin(); // successors, at any time
            }
          };
          if (by === 'load') all(order, RESUMING);
          if (by === 'pause') for (const state of [RUNNING_P2P, STOP]) all(down, state);
          if (by === 'migration' || by === 'cancelled migration') all(order, PRE_COPY);
          if (by === 'migration') {
            for (const state of [PRE_COPY_P2P, STOP_COPY, STOP]) all(down, state);
          }
          if (prepares && by !== 'cancelled migration') all(order, RUNNING_P2P);
          all(order, RUNNING);
          expect(host.states()).toEqual([1, 1, 1, 1]);
        }
        expect([host.warnings, host.p2p.work()]).toEqual([[], Infinity]);
      }),
    );
  });
});
