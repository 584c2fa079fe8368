import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_ERR_IRQ_INDEX as ERR,
  VFIO_PCI_INTX_IRQ_INDEX as INTX,
  VFIO_PCI_MSI_IRQ_INDEX as MSI,
  VFIO_PCI_MSIX_IRQ_INDEX as MSIX,
  VFIO_PCI_REQ_IRQ_INDEX as REQ,
} from '../../../src/abi/vfio-device.ts';
import { irq_live, irq_setup, PciInterrupts, type IrqEvent } from '../../../src/vfio/server/interrupts.ts';
import { refuse } from '../../../src/vfio/server/refuse.ts';
import { outcome } from '../../support/errno.ts';

const NONE = VFIO_IRQ_SET_DATA_NONE;
const BOOL = VFIO_IRQ_SET_DATA_BOOL;
const EVENTFD = VFIO_IRQ_SET_DATA_EVENTFD;
const MASK = VFIO_IRQ_SET_ACTION_MASK;
const UNMASK = VFIO_IRQ_SET_ACTION_UNMASK;
const TRIGGER = VFIO_IRQ_SET_ACTION_TRIGGER;

class Counter implements IrqEvent {
  count = 0;
  isOpen = true;
  signal(): void {
    if (!this.isOpen) throw new Error('signalled after close');
    this.count += 1;
  }
  take(): boolean {
    const had = this.count > 0;
    this.count = 0;
    return had;
  }
  close(): void {
    if (!this.isOpen) throw new Error('closed twice');
    this.isOpen = false;
  }
}

const BAD = 99;
const COUNTS = { [INTX]: 1, [MSI]: 4, [MSIX]: 4, [ERR]: 1, [REQ]: 1 };

/** A device's interrupts, and a user whose eventfds have the numbers that it gives. */
class Bed {
  readonly setup = irq_setup.view(new Uint8Array(irq_setup.size));
  readonly live = irq_live.view(new Uint8Array(irq_live.size));
  readonly given: Counter[] = [];
  readonly watched = new Set<Counter>();
  readonly shown: [number, number][] = [];
  kept: ReadonlyMap<number, Counter> = new Map();
  interrupts = this.open();

  open(kept?: ReadonlyMap<number, Counter>): PciInterrupts<Counter> {
    return new PciInterrupts<Counter>({
      counts: COUNTS,
      setup: this.setup,
      live: this.live,
      ...(kept && { kept }),
      keep: (events) => (this.kept = new Map(events)),
      watch: (event, isWatched) => void (isWatched ? this.watched.add(event) : this.watched.delete(event)),
      show: (index, vectors) => void this.shown.push([index, vectors]),
    });
  }

  /** `OK` or an errno. The data are descriptors or booleans; each good descriptor is a new counter. */
  set(index: number, action: number, kind: number, count: number, data: number[] = [], start = 0): string {
    const bytes = kind === EVENTFD ? new Uint8Array(Int32Array.from(data).buffer) : Uint8Array.from(data);
    return outcome(() => {
      this.interrupts.set({ flags: action | kind, index, start, count, data: bytes }, (fd) => {
        if (fd === BAD) throw refuse('EBADF', 'no such descriptor');
        const counter = new Counter();
        this.given.push(counter);
        return counter;
      });
    });
  }

  get last(): Counter {
    const counter = this.given.at(-1);
    if (counter === undefined) throw new Error('no counter');
    return counter;
  }

  get counts(): number[] {
    return this.given.map(({ count }) => count);
  }
}

describe('INTx', () => {
  it('is off until it gets an eventfd, or none', () => {
    const bed = new Bed();
    for (const [action, kind, count] of [
      [TRIGGER, NONE, 0],
      [TRIGGER, NONE, 1],
      [TRIGGER, BOOL, 1],
      [MASK, NONE, 1],
      [UNMASK, NONE, 1],
      [UNMASK, EVENTFD, 1],
    ] as const) {
      expect([action, kind, bed.set(INTX, action, kind, count, [1])]).toEqual([action, kind, 'EINVAL']);
    }
    expect(bed.set(INTX, TRIGGER, EVENTFD, 1, [BAD])).toBe('EBADF');
    expect(bed.interrupts.enabled).toBeUndefined();
    expect(bed.set(INTX, TRIGGER, EVENTFD, 1, [-1])).toBe('OK');
    expect(bed.interrupts.enabled).toBe(INTX);
    expect(bed.set(INTX, TRIGGER, NONE, 1)).toBe('OK');
    expect(bed.set(INTX, TRIGGER, EVENTFD, 2, [1, 2])).toBe('EINVAL');
    expect(bed.set(INTX, TRIGGER, EVENTFD, 1, [1])).toBe('OK');
    expect(bed.set(INTX, TRIGGER, NONE, 0)).toBe('OK');
    expect(bed.last.isOpen).toBe(false);
    expect(bed.set(INTX, TRIGGER, NONE, 0)).toBe('EINVAL');
  });

  it('masks itself when the device raises it, and comes again once it is unmasked', () => {
    const bed = new Bed();
    bed.set(INTX, TRIGGER, EVENTFD, 1, [1]);
    bed.interrupts.raise(0);
    expect(bed.last.count).toBe(1);
    expect(bed.set(INTX, UNMASK, NONE, 1)).toBe('OK');
    expect(bed.last.count).toBe(1); // nothing was raised meanwhile
    bed.interrupts.raise(1);
    bed.interrupts.raise(2);
    bed.interrupts.raise(3);
    expect(bed.last.count).toBe(2);
    expect(bed.set(INTX, UNMASK, BOOL, 1, [0])).toBe('OK');
    expect(bed.last.count).toBe(2);
    expect(bed.set(INTX, UNMASK, BOOL, 1, [1])).toBe('OK');
    expect(bed.last.count).toBe(3);
    bed.set(INTX, UNMASK, NONE, 1);
    expect(bed.last.count).toBe(3);
    expect(bed.set(INTX, MASK, EVENTFD, 1, [1])).toBe('ENOTTY');
    expect(bed.set(INTX, MASK, BOOL, 1, [0])).toBe('OK');
    bed.interrupts.raise(4);
    expect(bed.last.count).toBe(4);
  });

  it('that its user raises comes even when masked, and masks nothing', () => {
    const bed = new Bed();
    bed.set(INTX, TRIGGER, EVENTFD, 1, [1]);
    for (const [kind, data] of [
      [NONE, []],
      [BOOL, [1]],
      [BOOL, [0]],
    ] as const) {
      bed.set(INTX, TRIGGER, kind, 1, [...data]);
    }
    expect(bed.last.count).toBe(2);
    bed.set(INTX, MASK, NONE, 1);
    bed.set(INTX, TRIGGER, NONE, 1);
    expect(bed.last.count).toBe(3);
  });

  it('keeps its mask when it gets another eventfd', () => {
    const bed = new Bed();
    bed.set(INTX, TRIGGER, EVENTFD, 1, [1]);
    bed.set(INTX, MASK, NONE, 1);
    bed.set(INTX, TRIGGER, EVENTFD, 1, [2]);
    bed.interrupts.raise(0);
    expect(bed.counts).toEqual([0, 0]);
    bed.set(INTX, UNMASK, NONE, 1);
    expect(bed.counts).toEqual([0, 1]);
    expect(bed.given.map(({ isOpen }) => isOpen)).toEqual([false, true]);
  });

  it('is off while COMMAND says so, and comes then', () => {
    const bed = new Bed();
    bed.set(INTX, TRIGGER, EVENTFD, 1, [1]);
    bed.interrupts.setIntxDisabled(true);
    bed.interrupts.raise(0);
    bed.set(INTX, TRIGGER, NONE, 1);
    bed.set(INTX, UNMASK, NONE, 1);
    expect(bed.last.count).toBe(0);
    bed.interrupts.setIntxDisabled(false);
    expect(bed.last.count).toBe(1);
    const other = new Bed();
    other.interrupts.setIntxDisabled(true);
    other.set(INTX, TRIGGER, EVENTFD, 1, [1]);
    other.interrupts.raise(0);
    expect(other.last.count).toBe(0);
    other.interrupts.setIntxDisabled(false);
    expect(other.last.count).toBe(1);
  });

  it('that was raised before there was an eventfd comes with it, as the line is asserted still', () => {
    const bed = new Bed();
    bed.interrupts.raise(0);
    bed.set(INTX, TRIGGER, EVENTFD, 1, [1]);
    expect(bed.last.count).toBe(1);
  });

  it('is unmasked by an eventfd, of which there is one', () => {
    const bed = new Bed();
    bed.set(INTX, TRIGGER, EVENTFD, 1, [1]);
    const trigger = bed.last;
    expect(bed.set(INTX, UNMASK, EVENTFD, 1, [BAD])).toBe('EBADF');
    expect(bed.set(INTX, UNMASK, EVENTFD, 1, [2])).toBe('OK');
    const unmask = bed.last;
    expect([...bed.watched]).toEqual([unmask]);
    expect(bed.set(INTX, UNMASK, EVENTFD, 1, [3])).toBe('EBUSY');
    expect(bed.last.isOpen).toBe(false);
    bed.interrupts.raise(0);
    bed.interrupts.raise(1);
    expect(trigger.count).toBe(1);
    bed.interrupts.unmaskIfAsked();
    expect(trigger.count).toBe(1);
    unmask.signal();
    bed.interrupts.unmaskIfAsked();
    expect([trigger.count, unmask.count]).toEqual([2, 0]);
    expect(bed.set(INTX, UNMASK, EVENTFD, 1, [-1])).toBe('OK');
    expect([bed.watched.size, unmask.isOpen]).toEqual([0, false]);
    bed.set(INTX, UNMASK, EVENTFD, 1, [4]);
    bed.set(INTX, TRIGGER, NONE, 0);
    expect([bed.watched.size, bed.last.isOpen]).toEqual([0, false]);
  });
});

describe.each([
  ['MSI', MSI],
  ['MSI-X', MSIX],
])('%s', (_, index) => {
  it('has an eventfd for each vector', () => {
    const bed = new Bed();
    expect(bed.set(index, TRIGGER, NONE, 0)).toBe('EINVAL');
    expect(bed.set(index, TRIGGER, NONE, 1)).toBe('EINVAL');
    expect(bed.set(index, TRIGGER, EVENTFD, 0)).toBe('ERANGE');
    expect(bed.set(index, TRIGGER, EVENTFD, 3, [1, -1, 2])).toBe('OK');
    expect(bed.shown).toEqual([[index, 3]]);
    for (const n of [0, 2, 0, 2]) bed.interrupts.raise(n);
    expect(bed.counts).toEqual([2, 2]);
    expect(bed.set(index, TRIGGER, BOOL, 3, [1, 1, 0])).toBe('OK');
    expect(bed.counts).toEqual([3, 2]);
    expect(bed.set(index, TRIGGER, NONE, 1, [], 2)).toBe('OK');
    expect(bed.counts).toEqual([3, 3]);
    for (const action of [MASK, UNMASK]) expect(bed.set(index, action, NONE, 1)).toBe('ENOTTY');
    expect(bed.set(index, TRIGGER, NONE, 0)).toBe('OK');
    expect(bed.given.map(({ isOpen }) => isOpen)).toEqual([false, false]);
    expect(bed.shown.at(-1)).toEqual([index, 0]);
  });

  it('excludes the others until it is off', () => {
    const bed = new Bed();
    bed.set(index, TRIGGER, EVENTFD, 1, [1]);
    for (const other of [INTX, MSI, MSIX]) {
      if (other === index) continue;
      expect(bed.set(other, TRIGGER, EVENTFD, 1, [2])).toBe('EINVAL');
      expect(bed.set(other, TRIGGER, NONE, 0)).toBe('EINVAL');
    }
    bed.set(index, TRIGGER, NONE, 0);
    expect(bed.set(INTX, TRIGGER, EVENTFD, 1, [3])).toBe('OK');
    expect(bed.set(index, TRIGGER, EVENTFD, 1, [4])).toBe('EINVAL');
  });

  it('that fails at one vector keeps none of the request, and is as it was set up', () => {
    const bed = new Bed();
    expect(bed.set(index, TRIGGER, EVENTFD, 2, [1, BAD])).toBe('EBADF');
    expect(bed.interrupts.enabled).toBeUndefined();
    bed.set(index, TRIGGER, EVENTFD, 4, [1, 2, 3, 4]);
    const [first, second, third, fourth] = bed.given.slice(-4);
    expect(bed.set(index, TRIGGER, EVENTFD, 2, [5, BAD], 1)).toBe('EBADF');
    expect([first, second, third, fourth].map((counter) => counter?.isOpen)).toEqual([true, false, false, true]);
    expect(bed.interrupts.enabled).toBe(index);
    expect(bed.given.filter(({ isOpen }) => isOpen)).toHaveLength(2);
  });

  it('gets more vectors later if it is MSI-X', () => {
    const bed = new Bed();
    bed.set(index, TRIGGER, EVENTFD, 1, [1]);
    expect(bed.set(index, TRIGGER, EVENTFD, 1, [2], 3)).toBe(index === MSIX ? 'OK' : 'EINVAL');
    expect(bed.interrupts.vectors).toBe(index === MSIX ? 4 : 1);
    bed.interrupts.raise(3); // a device that has one message of MSI has it for all
    expect(bed.counts).toEqual(index === MSIX ? [0, 1] : [1]);
    expect(bed.set(index, TRIGGER, EVENTFD, 1, [-1], 3)).toBe('OK');
  });
});

it('what is pending is gone with a reset of the device, and nothing else', () => {
  const bed = new Bed();
  expect(bed.set(INTX, TRIGGER, EVENTFD, 1, [1])).toBe('OK');
  const intx = bed.last;
  bed.interrupts.raise(0);
  bed.interrupts.raise(0);
  expect([intx.count, bed.live.masked, bed.live.intx_pending]).toEqual([1, 1, 1]);
  bed.interrupts.dropPending();
  expect(bed.set(INTX, UNMASK, NONE, 1)).toBe('OK');
  expect([intx.count, bed.live.masked]).toEqual([1, 0]);
  bed.interrupts.raise(0);
  expect(intx.count).toBe(2);
});

it('a vector of MSI-X that was raised while it had no eventfd is pending, and comes with it', () => {
  const bed = new Bed();
  bed.set(MSIX, TRIGGER, EVENTFD, 1, [1]);
  bed.interrupts.raise(1);
  expect(bed.interrupts.pendingVectors).toBe(2);
  bed.set(MSIX, TRIGGER, EVENTFD, 1, [2], 1);
  expect([bed.last.count, bed.interrupts.pendingVectors]).toEqual([1, 0]);
});

it.each([
  ['ERR', ERR],
  ['REQ', REQ],
])('%s is told by an eventfd of its own, beside the others', (_, index) => {
  const bed = new Bed();
  bed.set(MSIX, TRIGGER, EVENTFD, 1, [1]);
  expect(bed.set(index, TRIGGER, NONE, 1)).toBe('EINVAL');
  expect(bed.set(index, TRIGGER, NONE, 0)).toBe('EINVAL');
  expect(bed.set(index, TRIGGER, BOOL, 1, [1])).toBe('OK');
  expect(bed.set(index, TRIGGER, BOOL, 0)).toBe('EINVAL');
  expect(bed.set(index, TRIGGER, EVENTFD, 0)).toBe('EINVAL');
  expect(bed.set(index, TRIGGER, EVENTFD, 1, [BAD])).toBe('EBADF');
  expect(bed.set(index, TRIGGER, EVENTFD, 1, [1])).toBe('OK');
  const event = bed.last;
  expect(bed.set(index, TRIGGER, EVENTFD, 1, [-2])).toBe('OK');
  bed.set(MSIX, TRIGGER, NONE, 0);
  bed.set(index, TRIGGER, NONE, 1);
  bed.set(index, TRIGGER, BOOL, 1, [1]);
  bed.set(index, TRIGGER, BOOL, 1, [0]);
  expect([event.count, event.isOpen]).toEqual([2, true]);
  for (const action of [MASK, UNMASK]) expect(bed.set(index, action, NONE, 1)).toBe('ENOTTY');
  expect(bed.set(index, TRIGGER, EVENTFD, 1, [-1])).toBe('OK');
  expect(event.isOpen).toBe(false);
});

it('a successor goes on with what its predecessor kept', () => {
  const bed = new Bed();
  bed.set(INTX, TRIGGER, EVENTFD, 1, [1]);
  const trigger = bed.last;
  bed.set(INTX, UNMASK, EVENTFD, 1, [2]);
  const unmask = bed.last;
  bed.interrupts.raise(0);
  bed.interrupts.raise(1);
  bed.watched.clear();
  bed.interrupts = bed.open(bed.kept);
  expect([...bed.watched]).toEqual([unmask]);
  unmask.signal();
  bed.interrupts.unmaskIfAsked();
  expect(trigger.count).toBe(2);
  bed.interrupts.clear();
  expect([trigger.isOpen, unmask.isOpen, bed.kept.size, bed.watched.size]).toEqual([false, false, 0, 0]);
});

describe('whatever its user and the device do', () => {
  const requests = fc.tuple(
    fc.constantFrom(INTX, MSI, MSIX, ERR, REQ),
    fc.constantFrom(MASK, UNMASK, TRIGGER, MASK | TRIGGER, 0),
    fc.constantFrom(NONE, BOOL, EVENTFD),
    fc.nat(4),
    fc.array(fc.constantFrom(-2, -1, 0, 1, 7, BAD), { minLength: 4, maxLength: 4 }),
  );
  const steps = fc.oneof(
    { weight: 5, arbitrary: requests.map((request) => ({ request })) },
    { weight: 3, arbitrary: fc.nat(9).map((raise) => ({ raise })) },
    { weight: 1, arbitrary: fc.boolean().map((disable) => ({ disable })) },
    { weight: 1, arbitrary: fc.constant({ succeed: true }) },
  );

  it('open eventfds are those that are kept, and no interrupt that was raised is lost', () => {
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 40 }), fc.nat(3), (all, start) => {
        const bed = new Bed();
        for (const step of all) {
          if ('request' in step) {
            const [index, action, kind, count, data] = step.request;
            const number = COUNTS[index];
            const from = Math.min(start, number - 1);
            bed.set(index, action, kind, Math.min(count, number - from), data, from);
          } else if ('raise' in step) {
            const before = bed.counts.reduce((sum, count) => sum + count, 0);
            const { enabled } = bed.interrupts;
            bed.interrupts.raise(step.raise);
            const told = bed.counts.reduce((sum, count) => sum + count, 0) - before;
            const isPending = bed.live.intx_pending !== 0 || bed.live.msix_pending !== 0;
            const isGone = enabled === MSI || (enabled === INTX && told === 0); // a vector, or INTx, that nobody asked for
            expect(told === 1 || isPending || isGone).toBe(true);
          } else if ('disable' in step) bed.interrupts.setIntxDisabled(step.disable);
          else bed.interrupts = bed.open(bed.kept);
          const open = new Set(bed.given.filter(({ isOpen }) => isOpen));
          expect(new Set(bed.kept.values())).toEqual(open);
          if (bed.interrupts.enabled === undefined) expect(bed.setup.vectors).toBe(0);
        }
        bed.interrupts.clear();
        expect(bed.given.every(({ isOpen }) => !isOpen)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
