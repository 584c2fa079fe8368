import { describe, expect, test } from 'vitest';
import { V2Save } from '../../src/v2/save.ts';
import { V2 } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome } from '../support/errno.ts';
import { SpyV2 } from '../support/spy-v2.ts';
import { TapeV2, type Answer } from '../support/tape-v2.ts';

function saving(tape: TapeV2): { spy: SpyV2; save: V2Save; received: Uint8Array[] } {
  const spy = new SpyV2(tape);
  const received: Uint8Array[] = [];
  return { spy, received, save: new V2Save(spy, (piece) => received.push(piece.slice())) };
}

/** The whole procedure of QEMU 10, with the VM stopped in between. */
function saveWith(flags: number, log: { iterate: boolean }): string[] {
  const tape = new TapeV2({
    flags,
    answers: (flags & 4) === 0 ? [] : [noise(24)],
    stopAnswers: [noise(36, 2)],
    stopCopyLength: 60,
  });
  const { spy, save } = saving(tape);
  save.setup();
  if (log.iterate) while (save.iterate() > 0);
  save.stop();
  save.complete();
  return spy.log;
}

describe('V2Save', () => {
  test.each([
    [1, ['STOP', 'STOP_COPY', 'STOP']],
    [3, ['RUNNING_P2P', 'STOP', 'STOP_COPY', 'STOP']],
    [5, ['PRE_COPY', 'STOP_COPY', 'STOP_COPY', 'STOP']],
    [7, ['PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY', 'STOP_COPY', 'STOP']],
  ])('with migration flags %i asks for the states that QEMU 10 asks for', (flags, states) => {
    const asked = saveWith(flags, { iterate: true }).filter((line) => line.startsWith('setState'));
    expect(asked).toEqual(states.map((name) => `setState ${name}`));
  });

  test('reads in pre-copy until there is no data now, and after the stop to the end, then closes', () => {
    expect(saveWith(7, { iterate: true })).toEqual([
      'setState PRE_COPY',
      'read 4096: 24',
      'read 4096: 0',
      'setState PRE_COPY_P2P',
      'setState STOP_COPY',
      'setState STOP_COPY',
      'read 4096: 36',
      'read 4096: 0',
      'setState STOP',
      'close',
    ]);
  });

  test.each<[string, Answer]>([
    ['ENOMSG', failure('ENOMSG', 'ERR_NO_DATA_NOW')],
    ['0', 0],
  ])('takes %s in pre-copy for "no data now" and goes on with the same session', (_, none) => {
    const [first, second, third] = [noise(5000, 1), noise(70, 2), noise(9000, 3)];
    const tape = new TapeV2({ answers: [first, none, second, none], stopAnswers: [third], stopCopyLength: 4096 });
    const { spy, save, received } = saving(tape);
    save.setup();
    expect([save.iterate(), save.iterate(), save.iterate()]).toEqual([4096, 904, 0]);
    expect([save.iterate(), save.iterate(), save.iterate()]).toEqual([70, 0, 0]);
    save.stop();
    expect(save.complete()).toBe(9000);
    expect(received).toBeBytes([first, second, third]);
    expect(spy.sessions).toHaveLength(1);
  });

  test('takes ENOMSG in STOP_COPY for the end as well, as QEMU does', () => {
    const { save, received } = saving(new TapeV2({ stopAnswers: [noise(10), failure('ENOMSG'), noise(10, 2)] }));
    save.setup();
    save.stop();
    expect(save.complete()).toBe(10);
    expect(join(received)).toEqual(noise(10));
  });

  test.each([
    ['the stop-copy length', 300_000, 300_000],
    ['at least a page', 60, 4096],
    ['at most 1 MiB', 5 * 2 ** 30, 2 ** 20],
    ['1 MiB where the driver does not say', undefined, 2 ** 20],
  ])('reads blocks of %s', (_, stopCopyLength, block) => {
    const { spy, save } = saving(new TapeV2(stopCopyLength === undefined ? {} : { stopCopyLength }));
    save.setup();
    save.iterate();
    expect(spy.log).toContain(`read ${block}: 0`);
  });

  test('does not enter pre-copy with a device that is stopped', () => {
    const tape = new TapeV2({ stopAnswers: [noise(100)] });
    tape.state = V2.STOP;
    const { spy, save, received } = saving(tape);
    save.setup();
    expect([save.iterate(), save.pending()]).toEqual([0, 0]);
    expect(save.complete()).toBe(100);
    expect(join(received)).toEqual(noise(100));
    expect(spy.log.filter((line) => line.startsWith('setState'))).toEqual(['setState STOP_COPY', 'setState STOP']);
  });

  test('pending is what the driver says of initial and dirty bytes', () => {
    const { save } = saving(new TapeV2({ precopyInfo: { initialBytes: 7000, dirtyBytes: 123 } }));
    expect(save.pending()).toBe(0);
    save.setup();
    expect(save.pending()).toBe(7123);
  });

  test('waits for what the device names while it says "not yet", and loses nothing', () => {
    const ready = { fd: 42, events: 1 };
    const tape = new TapeV2({ stopAnswers: [notYet(ready), noise(10), notYet(ready), notYet(), noise(20, 2)] });
    const spy = new SpyV2(tape);
    const waits: unknown[] = [];
    const received: Uint8Array[] = [];
    const save = new V2Save(
      spy,
      (piece) => received.push(piece.slice()),
      (readiness) => waits.push(readiness),
    );
    save.setup();
    save.stop();
    expect(save.complete()).toBe(30);
    expect(waits).toEqual([ready, ready, undefined]);
    expect(received).toBeBytes([noise(10), noise(20, 2)]);
  });

  test('gives the VMM no empty piece, and nothing after its end', () => {
    const tape = new TapeV2({ answers: [noise(5), 0], stopAnswers: [noise(5, 2)] });
    const { save, received } = saving(tape);
    save.setup();
    for (let n = 0; n < 3; n += 1) save.iterate();
    save.stop();
    save.complete();
    expect([save.iterate(), save.pending()]).toEqual([0, 0]);
    expect(received.map((piece) => piece.length)).toEqual([5, 5]);
  });

  test('does not pretend that a device without a data session was saved', () => {
    const tape = new TapeV2();
    tape.state = V2.STOP_COPY;
    expect(() => saving(tape).save.complete()).toThrow('v2 driver: is in STOP_COPY without a data session');
  });

  test.each([Number.NaN, -1, 1.5, Number.POSITIVE_INFINITY])(
    'of a device that says %d bytes are to be saved loses none of them',
    (length) => {
      const tape = new TapeV2({ stopAnswers: [noise(5000)], stopCopyLength: length });
      const { save, received } = saving(tape);
      save.complete();
      expect(received).toBeBytes(noise(5000));
    },
  );

  test.each([Number.NaN, -1, 1.5])('refuses a device that says %d bytes are left in pre-copy', (bytes) => {
    const tape = new TapeV2({ precopyInfo: { initialBytes: bytes, dirtyBytes: 0 } });
    const { save } = saving(tape);
    save.setup();
    expect(outcome(() => save.pending())).toBe('EIO');
  });

  test('a device that begins no session in PRE_COPY is at fault', () => {
    const tape = new TapeV2();
    tape.setState = () => undefined;
    expect(outcome(() => saving(tape).save.setup())).toBe('EIO');
  });

  test('passes any other error on, and cancel lets the device run', () => {
    const tape = new TapeV2({ answers: [noise(10), failure('EIO')] });
    const { spy, save } = saving(tape);
    save.setup();
    expect(save.iterate()).toBe(10);
    expect(outcome(() => save.iterate())).toBe('EIO');
    save.cancel();
    expect(tape.state).toBe(V2.RUNNING);
    expect(spy.log.slice(-2)).toEqual(['setState RUNNING', 'close']);
  });
});
