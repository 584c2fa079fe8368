import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VFIO_MIGRATION_P2P } from '../../../src/abi/vfio-v2.ts';
import { ShimError } from '../../../src/error.ts';
import { presentV1 } from '../../../src/bridge/present-v1.ts';
import { P2P } from '../../../src/interpose/serve/p2p.ts';
import type { Ledger } from '../../../src/interpose/memory/ledger.ts';
import { p2p_state } from '../../../src/interpose/memory/p2p-state.ts';
import type { V1Device } from '../../../src/v1/device.ts';
import { V1RegisterAccess } from '../../../src/v1/registers.ts';
import { V1, type V1State } from '../../../src/v1/states.ts';
import type { V2DataSession, V2Device } from '../../../src/v2/device.ts';
import { statePath } from '../../../src/v2/fsm.ts';
import { hasSession, V2, v2StateName, type V2State } from '../../../src/v2/states.ts';

const STOP_COPY = 1;
const PRE_COPY = 4;
const ALL = STOP_COPY | VFIO_MIGRATION_P2P | PRE_COPY;

const session: V2DataSession = {
  read: () => 0,
  write: (from) => from.length,
  precopyInfo: () => ({ initialBytes: 0, dirtyBytes: 0 }),
  close: () => {},
};

/** A v2 driver that goes the kernel's ways, and writes down which. */
class Driver implements V2Device {
  state: V2State = V2.RUNNING;
  readonly migrationFlags: number;
  readonly name: string;
  readonly #host: Host;
  /** What the requests to come end with. */
  fails: ('EIO' | 'ERROR' | 'later' | undefined)[] = [];
  isClosed = false;

  constructor(host: Host, name: string, flags: number) {
    this.#host = host;
    this.name = name;
    this.migrationFlags = flags;
  }

  getState(): V2State {
    return this.state;
  }

  setState(target: V2State): V2DataSession | undefined {
    const failure = this.fails.shift();
    if (failure === 'later') throw new ShimError('ERR_NO_DATA_YET', 'not yet', { errno: 'EAGAIN' });
    if (failure === 'ERROR') this.#enter(V2.ERROR);
    if (failure !== undefined) throw new ShimError('ERR_DEVICE', 'fails', { errno: 'EIO' });
    for (const hop of statePath(this.migrationFlags, this.state, target)) this.#enter(hop);
    return hasSession(this.state) ? session : undefined;
  }

  openSession(): V2DataSession | undefined {
    return hasSession(this.state) ? session : undefined;
  }

  stopCopyLength(): number {
    return 0;
  }

  reset(): void {
    this.#enter(V2.RUNNING);
  }

  #enter(state: V2State): void {
    this.state = state;
    this.#host.steps.push(`${this.name} ${v2StateName(state)}`);
    this.#host.check();
  }
}

/** A v1 VMM's devices, as the supervisor has them. */
class Host {
  readonly steps: string[] = [];
  /** Pairs of devices of which one may write to the other, which must not be written to. */
  readonly violations: string[] = [];
  readonly warnings: string[] = [];
  readonly drivers: Driver[];
  readonly committed: number[] = [];
  readonly #memory: Uint8Array[];
  now = 1000;
  p2p!: P2P;
  devices!: V1Device[];
  v1!: V1RegisterAccess[];
  readonly #processes: readonly number[];

  constructor(flags: readonly number[], processes: readonly number[] = flags.map(() => 1)) {
    this.drivers = flags.map((flag, n) => new Driver(this, String(n), flag));
    this.#memory = flags.map(() => new Uint8Array(p2p_state.size));
    this.#processes = processes;
    this.begin();
  }

  /** A supervisor begins, the first or a successor. */
  begin(): void {
    this.p2p = new P2P({
      commit: (ledgers) => this.committed.push(...ledgers.map(({ index }) => index)),
      warn: (message) => this.warnings.push(message),
      clock: () => this.now,
      processOf: (tid) => this.#processes[tid - 1],
    });
    this.devices = this.drivers.map((driver, n) => {
      const ledger = { index: 10 + n } as Ledger;
      const peer = {
        name: driver.name,
        ledger,
        device: driver,
        enter: () => !driver.isClosed,
        leave: () => {},
      };
      const device = this.p2p.join(peer, this.#memory[n] ?? new Uint8Array(0));
      this.p2p.usedBy(ledger, n + 1);
      return presentV1(device, { dataSection: new Uint8Array(4096) });
    });
    this.v1 = this.devices.map((device) => new V1RegisterAccess(device));
  }

  write(n: number, state: V1State): void {
    this.v1[n]?.setDeviceState(state);
    this.p2p.takeChanged();
  }

  check(): void {
    const running = this.drivers.filter(({ state }) => state === V2.RUNNING || state === V2.PRE_COPY);
    const stopped = this.drivers.filter(({ state }) => state === V2.STOP || state === V2.STOP_COPY);
    for (const one of running) {
      for (const other of stopped)
        this.violations.push(`${one.name} while ${other.name} is ${v2StateName(other.state)}`);
    }
  }

  states(): string[] {
    return this.drivers.map(({ state }) => v2StateName(state));
  }
}

describe('P2P', () => {
  it('takes the devices of a VMM that migrates to P2P states before the first stops, and up again together', () => {
    const host = new Host([ALL, ALL]);
    for (const n of [0, 1]) host.write(n, V1.PRE_COPY);
    for (const n of [1, 0]) host.write(n, V1.STOP_COPY);
    for (const n of [0, 1]) host.write(n, V1.STOP);
    expect(host.steps).toEqual([
      '0 PRE_COPY',
      '1 PRE_COPY',
      '0 PRE_COPY_P2P',
      '1 PRE_COPY_P2P',
      '1 STOP_COPY',
      '0 STOP_COPY',
      '0 STOP',
      '1 STOP',
    ]);
    host.steps.length = 0;
    for (const n of [0, 1]) host.write(n, V1.RUNNING);
    expect(host.steps).toEqual(['0 RUNNING_P2P', '1 RUNNING_P2P', '1 RUNNING', '0 RUNNING']);
    expect(host.v1.map((v1) => v1.deviceState())).toEqual([V1.RUNNING, V1.RUNNING]);
    expect([host.violations, host.warnings]).toEqual([[], []]);
  });

  it('does so at the destination, whose devices all wait to be loaded', () => {
    const host = new Host([ALL, ALL, ALL]);
    for (const n of [0, 1, 2]) host.write(n, V1.RESUMING);
    host.steps.length = 0;
    host.violations.length = 0; // of a VM that has not run yet
    for (const n of [0, 1, 2]) host.write(n, V1.RUNNING);
    expect(host.states()).toEqual(['RUNNING', 'RUNNING', 'RUNNING']);
    expect(host.steps.indexOf('0 RUNNING')).toBeGreaterThan(host.steps.indexOf('2 RUNNING_P2P'));
    expect(host.violations).toEqual([]);
  });

  it('leaves alone what is loaded while others run, what is cancelled before a stop, and other VMMs', () => {
    const host = new Host([ALL, ALL, ALL], [1, 1, 2]);
    for (const n of [0, 1]) host.write(n, V1.PRE_COPY);
    for (const n of [0, 1]) host.write(n, V1.RUNNING);
    host.write(2, V1.STOP);
    host.write(0, V1.RESUMING);
    expect(host.states()).toEqual(['RESUMING', 'RUNNING', 'STOP']);
    expect(host.steps.filter((step) => step.startsWith('1'))).toEqual(['1 PRE_COPY', '1 RUNNING']);
  });

  it('lets a device go on that its VMM does not stop, after a while, and says so', () => {
    const host = new Host([ALL, ALL]);
    host.write(1, V1.PRE_COPY);
    host.write(0, V1.STOP);
    expect(host.states()).toEqual(['STOP', 'PRE_COPY_P2P']);
    expect(host.v1[1]?.deviceState()).toBe(V1.PRE_COPY);
    expect(host.p2p.work()).toBe(2000);
    host.now += 1999;
    expect(host.p2p.work()).toBe(1);
    host.now += 1;
    expect(host.p2p.work()).toBe(Infinity);
    expect(host.states()).toEqual(['STOP', 'PRE_COPY']);
    expect(host.committed).toEqual([11]);
    expect(host.warnings).toEqual(['1: was stopped for another device, and then not by its VMM: it goes on']);
  });

  it('lets a device run whose VMM starts no other, after a while', () => {
    const host = new Host([ALL, ALL]);
    for (const n of [0, 1]) host.write(n, V1.STOP);
    host.write(0, V1.RUNNING);
    expect(host.states()).toEqual(['RUNNING_P2P', 'STOP']);
    expect(host.v1[0]?.deviceState()).toBe(V1.RUNNING);
    host.begin(); // a successor knows of it
    host.now += host.p2p.work();
    expect(host.p2p.work()).toBe(Infinity);
    expect(host.states()).toEqual(['RUNNING', 'STOP']);
    expect(host.warnings).toEqual([]);
  });

  it.each([
    ['runs again', (host: Host) => host.write(0, V1.RUNNING)],
    ['is reset', (host: Host) => host.devices[0]?.reset()],
  ])('lets devices go on that were stopped for one that %s', (_, act) => {
    const host = new Host([ALL, ALL]);
    host.write(0, V1.STOP);
    expect(host.states()).toEqual(['STOP', 'RUNNING_P2P']);
    act(host);
    expect(host.states()).toEqual(['RUNNING', 'RUNNING']);
    expect(host.p2p.work()).toBe(Infinity);
  });

  it('says once that a device has no P2P state, and goes on without it', () => {
    const host = new Host([ALL, STOP_COPY]);
    for (let n = 0; n < 2; n += 1) {
      host.write(0, V1.STOP);
      host.write(1, V1.STOP);
      host.write(1, V1.RUNNING);
      host.write(0, V1.RUNNING);
    }
    expect(host.states()).toEqual(['RUNNING', 'RUNNING']);
    expect(host.warnings).toEqual(['1: has no P2P state: it may write to other devices that are stopped already']);
  });

  it('goes on if a device does not enter its P2P state, or was closed', () => {
    const host = new Host([ALL, ALL, ALL]);
    const [, second, third] = host.drivers;
    if (second === undefined || third === undefined) throw new Error('unreachable');
    second.fails = ['EIO'];
    third.isClosed = true;
    host.write(0, V1.STOP);
    expect(host.states()).toEqual(['STOP', 'RUNNING', 'RUNNING']);
    expect(host.warnings).toEqual(['1: does not enter RUNNING_P2P: fails']);
    expect(host.p2p.work()).toBe(Infinity);
    host.write(1, V1.STOP);
    expect(host.states()).toEqual(['STOP', 'STOP', 'RUNNING']);
  });

  it("fails a device's own request, once, if it has gone to ERROR for another: its state is lost", () => {
    const host = new Host([ALL, ALL]);
    host.write(0, V1.PRE_COPY);
    host.write(1, V1.PRE_COPY);
    const [first] = host.drivers;
    if (first !== undefined) first.fails = ['ERROR'];
    host.write(1, V1.STOP_COPY);
    expect(host.states()).toEqual(['ERROR', 'STOP_COPY']);
    expect(() => host.write(0, V1.STOP_COPY)).toThrow(expect.objectContaining({ errno: 'EIO' }));
    host.write(0, V1.RUNNING);
  });

  it('waits for a device that is not ready to enter its P2P state', () => {
    const host = new Host([ALL, ALL]);
    const [, second] = host.drivers;
    if (second !== undefined) second.fails = ['later', 'later'];
    for (let n = 0; n < 2; n += 1) expect(() => host.write(0, V1.STOP)).toThrow('not yet');
    expect(host.states()).toEqual(['RUNNING', 'RUNNING']);
    host.write(0, V1.STOP);
    expect(host.states()).toEqual(['STOP', 'RUNNING_P2P']);
  });

  it('lets no device write to one that is stopped, however a VMM stops and starts them all', () => {
    const pass = fc.record({
      order: fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4, maxLength: 4 }),
      by: fc.constantFrom('pause', 'migration', 'cancelled migration', 'load'),
    });
    fc.assert(
      fc.property(fc.array(pass, { minLength: 1, maxLength: 6 }), (passes) => {
        const host = new Host([ALL, STOP_COPY | VFIO_MIGRATION_P2P, ALL, ALL]);
        for (const { order, by } of passes) {
          const all = (state: V1State): void => order.forEach((n) => host.write(n, state));
          if (by === 'pause') all(V1.STOP);
          if (by === 'load') {
            all(V1.RESUMING);
            host.violations.length = 0; // of a VM that has not run yet
          }
          if (by === 'migration' || by === 'cancelled migration') all(V1.PRE_COPY);
          if (by === 'migration') {
            all(V1.STOP_COPY);
            all(V1.STOP);
          }
          host.begin(); // successors, at any time
          all(V1.RUNNING);
          expect(host.states()).toEqual(['RUNNING', 'RUNNING', 'RUNNING', 'RUNNING']);
        }
        expect([host.violations, host.warnings, host.p2p.work()]).toEqual([[], [], Infinity]);
      }),
    );
  });
});
