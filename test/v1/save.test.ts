import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1Save } from '../../src/v1/save.ts';
import { join, noise } from '../support/bytes.ts';
import { sometimes, failure, outcome } from '../support/errno.ts';
import { SpyV1 } from '../support/spy-v1.ts';
import { TapeV1 } from '../support/tape-v1.ts';
import { REGISTERS } from '../support/v1-user.ts';

function saving(tape: TapeV1, mapped = true): { spy: SpyV1; save: V1Save; received: Uint8Array[] } {
  const spy = new SpyV1(tape.device, { mapped });
  const received: Uint8Array[] = [];
  return { spy, received, save: new V1Save(spy, (buffer) => received.push(buffer.slice())) };
}

const setState = (from: number, to: number): string[] => [`read device_state ${from}`, `write device_state ${to}`];
const buffer = (size: number): string[] => [`read data_offset ${DATA_OFFSET}`, `read data_size ${size}`];

/** What an access log says of one step. */
function during(spy: SpyV1, step: () => unknown): string[] {
  spy.log.length = 0;
  step();
  return [...spy.log];
}

/* hw/vfio/migration.c of QEMU 7.2, function by function. */
describe('V1Save register accesses', () => {
  test('save_setup: one read and one write of device_state', () => {
    const { spy, save } = saving(new TapeV1());
    expect(during(spy, () => save.setup())).toEqual(setState(1, 3));
  });

  test('save_setup of a paused VM goes straight to stop-and-copy', () => {
    const tape = new TapeV1();
    tape.state = 0;
    const { spy, save } = saving(tape);
    expect(during(spy, () => save.setup())).toEqual(setState(0, 2));
  });

  test('save_pending reads pending_bytes; save_iterate then does not, and reads one buffer', () => {
    const { spy, save } = saving(new TapeV1({ preCopy: [noise(100), noise(50, 2)] }));
    save.setup();
    expect(during(spy, () => save.pending())).toEqual(['read pending_bytes 150']);
    expect(during(spy, () => save.iterate())).toEqual(buffer(100));
  });

  test('save_iterate reads pending_bytes itself where its cached value is 0', () => {
    const { spy, save } = saving(new TapeV1({ preCopy: [noise(100), noise(50, 2)] }));
    save.setup();
    expect(during(spy, () => save.iterate())).toEqual(['read pending_bytes 150', ...buffer(100)]);
    expect(during(spy, () => save.iterate())).toEqual(['read pending_bytes 50', ...buffer(50)]);
    expect(during(spy, () => save.iterate())).toEqual(['read pending_bytes 0']);
  });

  test('the VM stop and save_complete_precopy do not read pending_bytes before they change the state', () => {
    const { spy, save } = saving(new TapeV1({ preCopy: [noise(100)], stopCopy: [noise(30, 2), noise(20, 3)] }));
    save.setup();
    save.iterate();
    expect(during(spy, () => save.stop())).toEqual(setState(3, 2));
    expect(during(spy, () => save.complete())).toEqual([
      ...setState(2, 2),
      'read pending_bytes 50',
      ...buffer(30),
      'read pending_bytes 20',
      ...buffer(20),
      'read pending_bytes 0',
      ...setState(2, 0),
    ]);
  });

  test('save_complete_precopy ends where data_size is 0 though bytes are pending', () => {
    const tape = new TapeV1();
    const { spy, save } = saving(tape);
    tape.lies = { pending: 4096 };
    save.setup();
    expect(during(spy, () => save.complete()).slice(2)).toEqual([
      'read pending_bytes 4096',
      ...buffer(0),
      ...setState(2, 0),
    ]);
  });

  test.each([3, 2, 0, 1])('a cancel in %i writes 1', (state) => {
    const tape = new TapeV1();
    tape.state = state;
    const { spy, save } = saving(tape);
    expect(during(spy, () => save.cancel())).toEqual(setState(state, 1));
  });

  test('without a mapped data section reads each buffer with one access', () => {
    const { spy, save, received } = saving(new TapeV1({ preCopy: [noise(100)] }), false);
    save.setup();
    expect(during(spy, () => save.iterate()).at(-1)).toBe(`read data ${DATA_OFFSET}+100`);
    expect(join(received)).toEqual(noise(100));
  });
});

describe('V1Save', () => {
  test.each([true, false])('receives what the driver gave, and the driver saw it consumed: mapped %s', (mapped) => {
    const buffers = [1, 4096, 65_536, 17, 30_000].map((size, n) => noise(size, n + 1));
    const tape = new TapeV1({ preCopy: buffers.slice(0, 3), stopCopy: buffers.slice(3) });
    const { spy, save, received } = saving(tape, mapped);
    save.setup();
    while (save.iterate() > 0);
    save.stop();
    expect(save.complete()).toBe(30_017);
    expect(received.map((piece) => piece.length)).toEqual([1, 4096, 65_536, 17, 30_000]);
    expect(received).toBeBytes(buffers);
    expect(spy.consumed).toBeBytes(buffers);
    expect(tape.states).toEqual([3, 2, 0]);
  });

  test('keeps the reserved bits of device_state', () => {
    const tape = new TapeV1();
    tape.reserved = 0x40;
    const { spy, save } = saving(tape);
    save.setup();
    save.complete();
    save.cancel();
    expect(spy.log.filter((line) => line.startsWith('write'))).toEqual([
      'write device_state 67',
      'write device_state 66',
      'write device_state 64',
      'write device_state 65',
    ]);
  });

  test('repeats any access that is not ready, and loses nothing', () => {
    const tape = new TapeV1({ preCopy: [noise(100)], stopCopy: [noise(50, 2)] });
    const inject = sometimes();
    const spy = new SpyV1(tape.device, { mapped: false, before: inject });
    let waits = 0;
    const received: Uint8Array[] = [];
    const save = new V1Save(
      spy,
      (piece) => received.push(piece.slice()),
      () => {
        waits += 1;
      },
    );
    save.setup();
    while (save.iterate() > 0);
    save.stop();
    save.complete();
    expect(received).toBeBytes([noise(100), noise(50, 2)]);
    expect(waits).toBeGreaterThan(10);
  });

  test('takes a data_size of 0 for nothing: the VMM gets no empty buffer', () => {
    const tape = new TapeV1();
    tape.lies = { pending: 10 };
    const { save, received } = saving(tape);
    save.setup();
    expect([save.iterate(), save.complete(), received.length]).toEqual([0, 0, 0]);
  });

  test('refuses a driver that shows data outside its region', () => {
    const tape = new TapeV1({ preCopy: [noise(100)] });
    const { save, received } = saving(tape);
    save.setup();
    tape.lies = { size: 2 ** 40 };
    expect(outcome(() => save.iterate())).toBe('EIO');
    expect(received).toEqual([]);
  });

  /* linux/vfio.h, 5.8: the data section may be mapped in part, and the driver may show data anywhere behind the registers. */
  test.each([
    ['from the first mapped byte to the last', 8192, 8192],
    ['within', 10_000, 1],
    ['that ends with the last mapped byte', 16_000, 384],
    ['that ends one byte behind', 16_000, 385, '16000+384', '16384+1'],
    ['that begins one byte before', 8191, 100, '8191+1', '8192+99'],
    ['before it', 4096, 4096, '4096+4096'],
    ['behind it', 16_384, 4096, '16384+4096'],
    ['around it', 4096, 16_384, '4096+4096', '8192+4096', '12288+4096', '16384+4096'],
  ] as const)(
    'takes a buffer from the mapped memory if all of it lies there: one %s',
    (_what, offset, size, ...reads) => {
      const how = reads.length === 0 ? 'mapped' : 'read';
      const bytes = noise(20_480);
      const accesses: string[] = [];
      const registers = new Map<number, number>([
        [REGISTERS.device_state.offset, 3],
        [REGISTERS.pending_bytes.offset, size],
        [REGISTERS.data_offset.offset, offset],
        [REGISTERS.data_size.offset, size],
      ]);
      const device: V1Device = {
        regionSize: bytes.length,
        dataSection: { offset: 8192, size: 8192 },
        mapped: bytes.subarray(8192, 16_384),
        read(at, into) {
          const value = registers.get(at);
          if (value === undefined) {
            accesses.push(`${at}+${into.length}`);
            into.set(bytes.subarray(at, at + into.length));
          } else new DataView(into.buffer, into.byteOffset).setUint32(0, value, true);
        },
        write: () => {},
        reset: () => {},
      };
      const received: Uint8Array[] = [];
      const save = new V1Save(device, (buffer) => received.push(buffer));
      expect(save.iterate()).toBe(size);
      expect(accesses).toEqual(reads);
      expect(received).toBeBytes([bytes.subarray(offset, offset + size)]);
      expect(received[0]?.buffer === bytes.buffer).toBe(how === 'mapped');
    },
  );

  test('passes a failed state write on', () => {
    const tape = new TapeV1();
    tape.refusals.set('1 3', { error: failure('EIO'), now: 6 });
    const { save } = saving(tape);
    expect(outcome(() => save.setup())).toBe('EIO');
    expect(tape.state).toBe(6);
  });
});
