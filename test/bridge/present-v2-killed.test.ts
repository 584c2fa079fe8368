import { describe, expect, test } from 'vitest';
import { PRESENT_V2_LIVE_SIZE, present_v2_live } from '../../src/bridge/present-v2-state.ts';
import { PRESENT_V2_STATE_SIZE, presentV2 } from '../../src/bridge/index.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { everyAccess, KilledMachine, type Kill } from '../support/killed-machine.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const buffers = [noise(3000, 1), noise(70, 2), noise(9000, 3), noise(1, 4)];
const SECTION = 10_000;

type Machine = KilledMachine<V2Device>;

function machineOf(tape: TapeV1, kill: Kill): Machine {
  const carry = new Uint8Array(SECTION);
  const sizes = { state: PRESENT_V2_STATE_SIZE, live: PRESENT_V2_LIVE_SIZE };
  return new KilledMachine(tape, kill, sizes, (driver, memory) =>
    presentV2(driver, { ...memory, carry, offerP2P: true }),
  );
}

const NEVER = { at: 0, after: false };

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
  test.each([
    [false, [V2.STOP_COPY]],
    [true, [V2.STOP_COPY]],
    [false, [V2.PRE_COPY_P2P, V2.STOP_COPY]],
    [true, [V2.PRE_COPY_P2P, V2.STOP_COPY]],
  ])('loses and doubles nothing of a save, killed at any access, carried out: %s; states %j', (after, way) => {
    const accesses = everyAccess(machineOf(source(), { mapped, ...NEVER }), (machine) => save(machine, way));
    expect(accesses.length).toBeGreaterThan(20);
    for (const at of accesses) {
      const machine = machineOf(source(), { mapped, at, after });
      expect(save(machine, way), `killed at ${at}`).toBeBytes(buffers);
    }
  });

  test.each([false, true])('takes each byte once, or says EIO, killed at any access, carried out: %s', (after) => {
    const accesses = everyAccess(machineOf(new TapeV1({ section: SECTION }), { mapped, ...NEVER }), restore);
    const refused: number[] = [];
    for (const at of accesses) {
      const tape = new TapeV1({ section: SECTION });
      const machine = machineOf(tape, { mapped, at, after });
      if (restore(machine)) expect(tape.loaded, `killed at ${at}`).toBeBytes(buffers);
      else refused.push(at);
    }
    expect(refused.length).toBe(2); // in the write of data_size, of either transaction
  });

  test('says EIO until the device is reset', () => {
    const tape = new TapeV1({ section: SECTION });
    const accesses = everyAccess(machineOf(new TapeV1({ section: SECTION }), { mapped, ...NEVER }), restore);
    const machine = accesses
      .map((at) => machineOf(tape, { mapped, at, after: true }))
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
