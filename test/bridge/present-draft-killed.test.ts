import { describe, expect, test } from 'vitest';
import { PRESENT_DRAFT_LIVE_SIZE, PRESENT_DRAFT_STATE_SIZE } from '../../src/bridge/present-draft-state.ts';
import { ShimError } from '../../src/error.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { Draft, DraftDevice } from '../../src/v1/drafts/device.ts';
import { DraftRestore } from '../../src/v1/drafts/restore.ts';
import { noise } from '../support/bytes.ts';
import { draftSave, GENERATIONS, presentDraft } from '../support/drafts.ts';
import { outcome } from '../support/errno.ts';
import { everyAccess, KilledMachine, type Kill } from '../support/killed-machine.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const buffers = [noise(3000, 1), noise(70, 2), noise(9000, 3), noise(1, 4)];
const SECTION = 12_288;
const NEVER = { at: 0, after: false };

type Machine = KilledMachine<DraftDevice>;

function machineOf(draft: Draft, tape: TapeV1, kill: Kill): Machine {
  const memory = { dataSection: new Uint8Array(SECTION), aside: new Uint8Array(SECTION) };
  const sizes = { state: PRESENT_DRAFT_STATE_SIZE, live: PRESENT_DRAFT_LIVE_SIZE };
  return new KilledMachine(tape, kill, sizes, (driver, kept) => presentDraft(draft, driver, { ...memory, ...kept }));
}

/** The device as a VMM sees it, which knows nothing of who is killed. */
function seen(machine: Machine): DraftDevice {
  const { draft, regionSize, dataSection, mapped } = machine.call((device) => device);
  return {
    draft,
    regionSize,
    dataSection,
    mapped,
    read: (offset, into) => machine.call((device) => device.read(offset, into)),
    write: (offset, from) => machine.call((device) => device.write(offset, from)),
    reset: () => machine.call((device) => device.reset()),
  };
}

const source = (): TapeV1 => new TapeV1({ preCopy: buffers.slice(0, 2), stopCopy: buffers.slice(2), section: SECTION });
const destination = (): TapeV1 => new TapeV1({ section: SECTION });

/** A driver that fails once, in the second piece of its first buffer. */
class Interrupted extends TapeV1 {
  #failed = false;

  override get device(): V1Device {
    const device = super.device;
    const { offset: begin } = device.dataSection;
    return {
      regionSize: device.regionSize,
      dataSection: device.dataSection,
      mapped: device.mapped,
      read: (offset, into) => {
        if (offset > begin && !this.#failed) {
          this.#failed = true;
          throw new ShimError('ERR_DEVICE', 'once', { errno: 'EIO' });
        }
        device.read(offset, into);
      },
      write: (offset, from) => device.write(offset, from),
      reset: () => device.reset(),
    };
  }
}

/** Stops with a buffer of pre-copy that is fetched and not taken, if `early`. */
function save(machine: Machine, early: boolean): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const saving = draftSave(seen(machine), (buffer) => pieces.push(buffer.slice()));
  saving.setup();
  saving.pending();
  saving.iterate();
  if (early) saving.pending();
  saving.stop();
  saving.complete();
  return pieces;
}

/** True where all of it was taken, false where the VMM was told of an error. */
function restore(machine: Machine): boolean {
  const answer = outcome(() => {
    const restoring = new DraftRestore(seen(machine));
    restoring.setup();
    for (const buffer of buffers) restoring.load(buffer);
    restoring.complete();
  });
  if (answer === 'OK') return true;
  expect(answer).toBe('EIO');
  return false;
}

const cases = GENERATIONS.flatMap((draft) => [true, false].map((mapped) => [draft, mapped] as const));

describe.each(cases)('%s over a v1 driver of the kernel, data section mapped: %s', (draft, mapped) => {
  test.each([
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ])('loses and doubles nothing of a save, killed at any access, carried out: %s; early: %s', (after, early) => {
    const run = (machine: Machine): Uint8Array[] => save(machine, early);
    const accesses = everyAccess(machineOf(draft, source(), { mapped, ...NEVER }), run);
    expect(accesses.length).toBeGreaterThan(20);
    for (const at of accesses) {
      const machine = machineOf(draft, source(), { mapped, at, after });
      expect(run(machine), `killed at ${at}`).toBeBytes(buffers);
      expect(machine.tape.state, `killed at ${at}`).toBe(0);
    }
  });

  test.each([false, true])('takes each byte once, or says EIO, killed at any access, carried out: %s', (after) => {
    const accesses = everyAccess(machineOf(draft, destination(), { mapped, ...NEVER }), restore);
    const refused: number[] = [];
    for (const at of accesses) {
      const tape = destination();
      const machine = machineOf(draft, tape, { mapped, at, after });
      if (restore(machine)) {
        expect(tape.loaded, `killed at ${at}`).toBeBytes(buffers);
        expect(tape.state, `killed at ${at}`).toBe(1);
      } else refused.push(at);
    }
    expect(refused.length).toBe(buffers.length); // in the write of data_size, of each transaction
  });

  test.each([false, true])(
    'has a buffer that it was reading when the device left pre-copy, carried out: %s',
    (after) => {
      const run = (machine: Machine): Uint8Array[] => {
        const pieces: Uint8Array[] = [];
        const device = seen(machine);
        const saving = draftSave(device, (buffer) => pieces.push(buffer.slice()));
        saving.setup();
        const read = outcome(() => {
          saving.pending();
          saving.iterate();
        });
        if (!mapped) expect(read).toBe('EIO');
        saving.stop();
        saving.complete();
        return pieces;
      };
      const tape = (): TapeV1 =>
        new Interrupted({ preCopy: [noise(9000, 1)], stopCopy: [noise(9, 2)], section: SECTION });
      const accesses = everyAccess(machineOf(draft, tape(), { mapped, ...NEVER }), run);
      for (const at of accesses) {
        const pieces = run(machineOf(draft, tape(), { mapped, at, after }));
        expect(pieces, `killed at ${at}`).toBeBytes([noise(9000, 1), noise(9, 2)]);
      }
    },
  );

  test('takes buffers in several transactions, which a driver with a small section needs', () => {
    const tape = new TapeV1({ section: 4096 });
    const small = (at: number, after: boolean): Machine => machineOf(draft, tape, { mapped, at, after });
    const accesses = everyAccess(small(0, false), restore);
    let complete = 0;
    for (const at of accesses) {
      for (const after of [false, true]) {
        tape.loaded.length = 0;
        tape.reset();
        if (!restore(small(at, after))) continue;
        complete += 1;
        expect(tape.loaded, `killed at ${at}`).toBeBytes(buffers);
      }
    }
    expect(complete).toBeGreaterThan(accesses.length);
  });
});
