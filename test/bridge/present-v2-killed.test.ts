import { describe, expect, test } from 'vitest';
import { PRESENT_V2_LIVE_SIZE, present_v2_live } from '../../src/bridge/present-v2-state.ts';
import { PRESENT_V2_STATE_SIZE, presentV2 } from '../../src/bridge/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { TapeV1 } from '../support/tape-v1.ts';

/*
 * A process that serves a v1 driver of the kernel is killed at any of its accesses, before or after the driver carried it
 * out. Its successor has the state of before the call, and repeats the call; the driver has forgotten nothing.
 */

class Killed extends Error {}

const buffers = [noise(3000, 1), noise(70, 2), noise(9000, 3), noise(1, 4)];
const SECTION = 10_000;

class Machine {
  readonly tape: TapeV1;
  readonly mapped: boolean;
  accesses = 0;
  /** The access at which the process is killed, and whether the driver has carried it out by then. */
  readonly #killAt: number;
  readonly #after: boolean;
  readonly #committed = { state: new Uint8Array(PRESENT_V2_STATE_SIZE), carry: new Uint8Array(SECTION) };
  readonly #left = new Uint8Array(PRESENT_V2_LIVE_SIZE);
  readonly #live = new Uint8Array(PRESENT_V2_LIVE_SIZE);
  #device: V2Device;
  #working = { state: new Uint8Array(0), carry: new Uint8Array(0) };

  constructor(tape: TapeV1, mapped: boolean, killAt: number, after: boolean) {
    this.tape = tape;
    this.mapped = mapped;
    this.#killAt = killAt;
    this.#after = after;
    this.#device = this.#begin();
  }

  #begin(): V2Device {
    this.#live.set(this.#left);
    this.#working = { state: this.#committed.state.slice(), carry: this.#committed.carry };
    return presentV2(this.#driver(), { ...this.#working, live: this.#live, offerP2P: true });
  }

  #driver(): V1Device {
    const { device } = this.tape;
    const access = (carryOut: () => void): void => {
      this.accesses += 1;
      const killed = this.accesses === this.#killAt;
      if (killed && !this.#after) this.#die();
      carryOut();
      if (killed) this.#die();
    };
    return {
      regionSize: device.regionSize,
      dataSection: device.dataSection,
      mapped: this.mapped ? device.mapped : undefined,
      read: (offset, into) => access(() => device.read(offset, into)),
      write: (offset, from) =>
        access(() => {
          device.write(offset, from);
          if (offset === 0) this.tape.section.fill(0xee); // a change of state may reuse the data section
        }),
      reset: () => device.reset(),
    };
  }

  /** Nothing that an exception would still do is done. */
  #die(): never {
    this.#left.set(this.#live);
    throw new Killed();
  }

  /** A call of the VMM's: what it did is kept once it is done; a successor repeats it. */
  call<T>(serve: (device: V2Device) => T): T {
    for (;;) {
      try {
        const result = serve(this.#device);
        this.#committed.state.set(this.#working.state);
        return result;
      } catch (error) {
        if (!(error instanceof Killed)) {
          this.#committed.state.set(this.#working.state);
          throw error;
        }
        this.#device = this.#begin();
      }
    }
  }

  /** Something that is done between calls. */
  aside(act: (device: V2Device) => void): void {
    try {
      act(this.#device);
      this.#committed.state.set(this.#working.state);
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      this.#device = this.#begin();
    }
  }
}

function save(machine: Machine, way: readonly V2State[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const to = (state: V2State): void => machine.call((device) => void device.setState(state));
  const read = (): number => {
    const into = new Uint8Array(4096);
    const length = machine.call((device) => device.openSession()?.read(into) ?? 0);
    pieces.push(into.subarray(0, length));
    machine.aside((device) => device.openSession()?.readAhead?.());
    return length;
  };
  to(V2.PRE_COPY);
  read();
  machine.call((device) => device.openSession()?.precopyInfo());
  for (const state of way) to(state);
  while (read() > 0);
  to(V2.STOP);
  return pieces;
}

/** True where all of it was taken, false where the VMM was told of an error. */
function restore(machine: Machine): boolean {
  const all = Buffer.concat(buffers);
  const answer = outcome(() => {
    machine.call((device) => void device.setState(V2.RESUMING));
    for (let at = 0; at < all.length;) {
      at += machine.call((device) => device.openSession()?.write(all.subarray(at, at + 2500)) ?? Number.NaN);
    }
    machine.call((device) => void device.setState(V2.RUNNING));
  });
  if (answer === 'OK') return true;
  expect(answer).toBe('EIO');
  return false;
}

const source = (): TapeV1 => new TapeV1({ preCopy: buffers.slice(0, 2), stopCopy: buffers.slice(2), section: SECTION });

describe.each([true, false])('presentV2 over a driver of the kernel, data section mapped: %s', (mapped) => {
  const accessesOf = (run: (machine: Machine) => unknown, tape: TapeV1): number => {
    const machine = new Machine(tape, mapped, 0, false);
    run(machine);
    return machine.accesses;
  };
  const every = (n: number): number[] => Array.from({ length: n }, (_, k) => k + 1);

  test.each([
    [false, [V2.STOP_COPY]],
    [true, [V2.STOP_COPY]],
    [false, [V2.PRE_COPY_P2P, V2.STOP_COPY]],
    [true, [V2.PRE_COPY_P2P, V2.STOP_COPY]],
  ])('loses and doubles nothing of a save, killed at any access, carried out: %s; states %j', (after, way) => {
    const count = accessesOf((machine) => save(machine, way), source());
    expect(count).toBeGreaterThan(20);
    for (const killAt of every(count)) {
      const machine = new Machine(source(), mapped, killAt, after);
      expect(save(machine, way), `killed at ${killAt}`).toBeBytes(buffers);
    }
  });

  test.each([false, true])('takes each byte once, or says EIO, killed at any access, carried out: %s', (after) => {
    const accesses = accessesOf(restore, new TapeV1({ section: SECTION }));
    const refused: number[] = [];
    for (const killAt of every(accesses)) {
      const tape = new TapeV1({ section: SECTION });
      const machine = new Machine(tape, mapped, killAt, after);
      if (restore(machine)) expect(tape.loaded, `killed at ${killAt}`).toBeBytes(buffers);
      else refused.push(killAt);
    }
    expect(refused.length).toBe(2); // in the write of data_size, of either transaction
  });

  test('says EIO until the device is reset', () => {
    const tape = new TapeV1({ section: SECTION });
    const accesses = accessesOf(restore, new TapeV1({ section: SECTION }));
    const machine = every(accesses)
      .map((killAt) => new Machine(tape, mapped, killAt, true))
      .find((candidate) => !restore(candidate));
    expect(outcome(() => machine?.call((device) => device.setState(V2.STOP)))).toBe('EIO');
    expect(outcome(() => machine?.call((device) => device.setState(V2.STOP)))).toBe('EIO');
    machine?.call((device) => device.reset());
    tape.loaded.length = 0;
    if (machine !== undefined) expect(restore(machine)).toBe(true);
    expect(tape.loaded).toBeBytes(buffers);
  });
});

describe('presentV2 after a predecessor that was killed', () => {
  test('while the driver took data: the error says so', () => {
    const live = new Uint8Array(PRESENT_V2_LIVE_SIZE);
    const session = presentV2(new TapeV1({ section: SECTION }).device, { live }).setState(V2.RESUMING);
    present_v2_live.view(live).handing += 1;
    expect(thrownBy(() => session?.write(noise(SECTION)))).toMatchObject({ code: 'ERR_SESSION_ENDED', errno: 'EIO' });
  });

  test('while it asked for the first buffer: MIG_DATA_SIZE is not 0, which would be the end of the stream', () => {
    const live = new Uint8Array(PRESENT_V2_LIVE_SIZE);
    const tape = new TapeV1({ stopCopy: [...buffers], section: SECTION });
    const device = presentV2(tape.device, { live });
    const session = device.setState(V2.STOP_COPY);
    present_v2_live.view(live).asked += 1;
    expect(device.stopCopyLength()).toBe(1);
    const into = new Uint8Array(SECTION);
    expect(session?.read(into)).toBe(3000);
    expect(into.subarray(0, 3000)).toBeBytes(noise(3000, 1));
  });
});
