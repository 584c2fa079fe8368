import { describe, expect, test } from 'vitest';
import type { V2DataSession } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { logged, loggedBytes } from '../support/mtty-log.ts';
import { v2Sim, type V2Sim } from '../support/sims.ts';

const SCR = 7;
/** The whole state of a real mtty, as Linux 6.12 gave it. */
const state = join([loggedBytes('precopy'), loggedBytes('stop-copy')]);

function resuming(spec = 'mtty'): V2Sim & { session: V2DataSession } {
  const sim = v2Sim(spec);
  const session = sim.device.setState(V2.RESUMING);
  if (session === undefined) throw new Error('no session');
  return Object.assign(sim, { session });
}

describe('sim mtty, RESUMING as in Linux 6.12', () => {
  test('takes the state in pieces, no byte more, and has it once it runs', () => {
    logged(
      'write(13)=13 write(13)=13 write(13)=13 write(13)=13 write(8)=8 | write(1) beyond end -1 ENOMEM | write(0) 0',
    );
    const { device, bar, session } = resuming();
    expect(cut(state, [13]).map((piece) => session.write(piece))).toEqual([13, 13, 13, 13, 8]);
    expect(outcome(() => session.write(new Uint8Array(1)))).toBe('ENOMEM');
    expect(session.write(new Uint8Array(0))).toBe(0);
    logged('SET RUNNING 0 data_fd=-1; write(old fd) -1 ENODEV');
    expect(device.setState(V2.RUNNING)).toBeUndefined();
    expect(outcome(() => session.write(new Uint8Array(1)))).toBe('ENODEV');
    expect(bar[SCR]).toBe(0x77);
  });

  test('keeps every byte of a real state: what is saved again is what was loaded', () => {
    const { device, session } = resuming();
    session.write(state);
    device.setState(V2.STOP_COPY);
    const back = new Uint8Array(500);
    const length = device.openSession()?.read(back) ?? 0;
    expect(back.subarray(0, length)).toBeBytes(state);
  });

  test('read() of the resuming fd is EBADF, and it has no precopy info', () => {
    const { session } = resuming();
    logged('read(resume fd) -1 EBADF, resume fd PRECOPY_INFO -> -1 ENOTTY');
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('EBADF');
    expect(outcome(() => session.precopyInfo())).toBe('ENOTTY');
  });

  test('a truncated state refuses STOP and RUNNING, stays RESUMING and can be completed', () => {
    logged(
      'truncated: write(30) 30; -> STOP -1 EINVAL now=RESUMING; -> RUNNING -1 EINVAL now=RESUMING; rest write 30; -> RUNNING 0',
    );
    const { device, bar, session } = resuming();
    expect(session.write(state.subarray(0, 30))).toBe(30);
    for (const target of [V2.STOP, V2.RUNNING]) {
      expect(outcome(() => device.setState(target))).toBe('EINVAL');
      expect(device.getState()).toBe(V2.RESUMING);
    }
    expect(session.write(state.subarray(30))).toBe(30);
    device.setState(V2.RUNNING);
    expect([...bar]).toEqual([...state.subarray(24, 32)]);
  });

  test('an empty state refuses RUNNING; RESUMING again gives no new fd; a reset leaves it', () => {
    logged('empty: -> RUNNING -1 EINVAL now=RESUMING; RESUMING again 0 data_fd=-1; RESET 0 now=RUNNING');
    const { device } = resuming();
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EINVAL');
    expect(device.setState(V2.RESUMING)).toBeUndefined();
    device.reset();
    expect(device.getState()).toBe(V2.RUNNING);
  });

  test('a bad magic fails the write with EFAULT, yet its bytes are taken and the device runs with them', () => {
    logged(
      'bad magic: write(all) -1 EFAULT; write again -1 ENOMEM; -> RUNNING 0 now=RUNNING dst SCR=99 (!if 99: bad data was loaded)',
    );
    const { device, bar, session } = resuming();
    const bad = state.slice();
    bad[0] = 0;
    bad[24 + SCR] = 0x99;
    expect(outcome(() => session.write(bad))).toBe('EFAULT');
    expect(outcome(() => session.write(bad))).toBe('ENOMEM');
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
    expect(bar[SCR]).toBe(0x99);
  });

  test('a wrong number of ports fails the write of the header, the rest is taken', () => {
    logged('wrong nr_ports: write(header 24) -1 EFAULT; write(rest) 36; -> RUNNING 0 now=RUNNING');
    const { device, session } = resuming();
    const bad = state.slice();
    bad[16] = 2;
    expect(outcome(() => session.write(bad.subarray(0, 24)))).toBe('EFAULT');
    expect(session.write(bad.subarray(24))).toBe(36);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
  });

  test.each([
    ['magic', 0],
    ['major_ver', 8],
    ['minor_ver', 12],
    ['nr_ports', 16],
    ['flags', 20],
  ])('the header is checked with its last byte: %s', (_, at) => {
    const { session } = resuming();
    const bad = state.slice(0, 24);
    bad[at] = (bad[at] ?? 0) ^ 0x40;
    expect(session.write(bad.subarray(0, 23))).toBe(23);
    expect(outcome(() => session.write(bad.subarray(23)))).toBe('EFAULT');
  });

  test('more than the state in one write is ENOMEM, and none of it is taken', () => {
    logged('oversize single write(61) -1 ENOMEM');
    const { bar, session } = resuming();
    expect(outcome(() => session.write(noise(61)))).toBe('ENOMEM');
    expect([...bar]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(session.write(state)).toBe(60);
  });

  test('two ports load into two ports only', () => {
    const source = v2Sim('mtty,ports=2');
    const bytes = new Uint8Array(500);
    const length = source.device.setState(V2.STOP_COPY)?.read(bytes) ?? 0;
    const twin = resuming('mtty,ports=2');
    expect(twin.session.write(bytes.subarray(0, length))).toBe(96);
    expect(outcome(() => twin.device.setState(V2.RUNNING))).toBe('OK');
    const other = resuming('mtty');
    expect(outcome(() => other.session.write(bytes.subarray(0, 24)))).toBe('EFAULT');
  });
});
