import { describe, expect, test } from 'vitest';
import { presentV1, presentV2 } from '../../src/bridge/index.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2 } from '../../src/v2/states.ts';
import { checkMarks, EndlessV1, EndlessV2, mark } from '../support/endless.ts';
import { readRegister, v1User, writeRegister } from '../support/v1-user.ts';

const SIZE = 2 ** 33 + 4097;
const SECTION = 64 * 1024 * 1024;

describe('presentV1 above 4 GiB', () => {
  test('hands out every byte of the state in order, with exact counts', () => {
    const device = presentV1(new EndlessV2(SIZE), { dataSection: new Uint8Array(SECTION) });
    const user = v1User(device);
    user.setState(V1.STOP_COPY);
    expect(user.pending()).toBe(SIZE);
    let received = 0;
    for (let pending = user.pending(); pending > 0; pending = user.pending()) {
      expect(pending).toBe(SIZE - received);
      expect(user.offset()).toBe(DATA_OFFSET);
      const size = user.size();
      checkMarks((device.mapped as Uint8Array).subarray(0, size), received);
      received += size;
    }
    expect(received).toBe(SIZE);
  });

  test('takes in every byte in order', () => {
    const target = new EndlessV2(SIZE);
    const device = presentV1(target, { dataSection: new Uint8Array(SECTION) });
    const user = v1User(device);
    user.setState(V1.RESUMING);
    for (let at = 0; at < SIZE; at += SECTION) {
      const size = Math.min(SECTION, SIZE - at);
      mark((device.mapped as Uint8Array).subarray(0, size), at);
      writeRegister(device, 'data_size', size);
    }
    expect(target.written).toBe(SIZE);
    user.setState(V1.RUNNING);
    expect(readRegister(device, 'device_state')).toBe(1);
  });
});

describe('presentV2 above 4 GiB', () => {
  test.each([64 * 1024 * 1024, 48 * 1024 * 1024 + 4096])(
    'hands out every byte of the state in order, in blocks of %i',
    (block) => {
      const device = presentV2(new EndlessV1(SIZE, SECTION).device);
      const session = device.setState(V2.STOP_COPY);
      const into = new Uint8Array(block);
      let received = 0;
      for (let length = session?.read(into) ?? 0; length > 0; length = session?.read(into) ?? 0) {
        checkMarks(into.subarray(0, length), received);
        received += length;
      }
      expect(received).toBe(SIZE);
      expect(device.stopCopyLength()).toBe(0);
      device.setState(V2.STOP);
      expect(device.stopCopyLength()).toBe(SIZE);
    },
  );

  test('takes in every byte in order', () => {
    const target = new EndlessV1(SIZE, SECTION);
    const device = presentV2(target.device);
    const session = device.setState(V2.RESUMING);
    const bytes = new Uint8Array(48 * 1024 * 1024);
    for (let at = 0; at < SIZE;) {
      const piece = bytes.subarray(0, Math.min(bytes.length, SIZE - at));
      mark(piece, at);
      let done = 0;
      while (done < piece.length) done += session?.write(piece.subarray(done)) ?? Number.NaN;
      at += piece.length;
    }
    device.setState(V2.RUNNING);
    expect(target.loaded).toBe(SIZE);
  });
});

describe('presentV1 of presentV2 above 4 GiB', () => {
  test('hands out every byte, in buffers of its own', () => {
    const device = presentV1(presentV2(new EndlessV1(SIZE, SECTION).device), {
      dataSection: new Uint8Array(40 * 2 ** 20),
    });
    const user = v1User(device);
    user.setState(V1.STOP_COPY);
    let received = 0;
    while (user.pending() > 0) {
      user.offset();
      const size = user.size();
      checkMarks((device.mapped as Uint8Array).subarray(0, size), received);
      received += size;
    }
    expect(received).toBe(SIZE);
  });
});
