import { describe, expect, test } from 'vitest';
import { V2, type V2State } from '../../src/v2/states.ts';
import { outcome } from '../support/errno.ts';
import { matrixRows } from '../support/mtty-log.ts';
import { v2Sim } from '../support/sims.ts';

const rows = matrixRows();

describe('sim mtty, transition matrix of Linux 6.12', () => {
  test('has a row for each of 7 states and 9 requests', () => {
    expect(rows).toHaveLength(63);
    expect(new Set(rows.map(({ from, to }) => `${from} ${to}`)).size).toBe(63);
    expect(rows.filter(({ result }) => result === 'OK').length).toBeGreaterThan(30);
  });

  test.each(rows)('$line', ({ from, to, result, fd, now, dataSize, hadFd }) => {
    const { device } = v2Sim('mtty');
    device.reset();
    if (from !== V2.RUNNING) device.setState(from);
    expect(device.openSession() !== undefined).toBe(hadFd);

    let session: unknown;
    expect(
      outcome(() => {
        session = device.setState(to as V2State);
      }),
    ).toBe(result);
    expect(session !== undefined).toBe(fd ?? false);
    expect(device.getState()).toBe(now);
    expect(device.stopCopyLength()).toBe(dataSize);
  });

  test.each(rows)('$line: on a device that a former object left in that state', ({ from, to, result, now }) => {
    const first = v2Sim('mtty');
    if (from !== V2.RUNNING) first.device.setState(from);
    const { device } = v2Sim('mtty', first.memory);
    expect(device.getState()).toBe(from);
    expect(outcome(() => device.setState(to as V2State))).toBe(result);
    expect(device.getState()).toBe(now);
  });
});
