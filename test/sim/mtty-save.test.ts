import { describe, expect, test } from 'vitest';
import type { V2DataSession } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { join } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { logged, loggedBytes } from '../support/mtty-log.ts';
import { v2Sim, type V2Sim } from '../support/sims.ts';

const SCR = 7;

function read(session: V2DataSession | undefined, length: number): Uint8Array {
  const into = new Uint8Array(length);
  return into.subarray(0, session?.read(into) ?? 0);
}

function inPreCopy(): V2Sim & { session: V2DataSession } {
  const sim = v2Sim('mtty');
  const session = sim.device.setState(V2.PRE_COPY);
  if (session === undefined) throw new Error('no session');
  return Object.assign(sim, { session });
}

describe('sim mtty, PRE_COPY flow of Linux 6.12', () => {
  test('the header is the logged one, with precopy info going down as it is read', () => {
    const { session } = inPreCopy();
    logged('fresh PRECOPY_INFO -> 0 initial=24 dirty=0 flags=0\n');
    expect(session.precopyInfo()).toEqual({ initialBytes: 24, dirtyBytes: 0 });
    logged('read(10) -> 10\nafter 10 PRECOPY_INFO -> 0 initial=14 dirty=0');
    const first = read(session, 10);
    expect(session.precopyInfo()).toEqual({ initialBytes: 14, dirtyBytes: 0 });
    logged('read(500) -> 14\n');
    const second = read(session, 500);
    expect(join([first, second])).toEqual(loggedBytes('precopy'));
    logged('drained PRECOPY_INFO -> 0 initial=0 dirty=0');
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0 });
    logged('read at end of PRE_COPY data -> 0\n');
    expect(read(session, 500)).toHaveLength(0);
  });

  test('write() to the saving fd is EBADF', () => {
    const { session } = inPreCopy();
    logged('write=-1 EBADF');
    expect(outcome(() => session.write(new Uint8Array(1)))).toBe('EBADF');
  });

  test('a guest write in PRE_COPY adds nothing to read there, and is in the stop-copy data', () => {
    const { device, bar, session } = inPreCopy();
    read(session, 500);
    logged(
      'guest writes SCR=0x77 during PRE_COPY; after write PRECOPY_INFO -> 0 initial=0 dirty=0 flags=0\nread -> 0\n',
    );
    bar[SCR] = 0x77;
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0 });
    expect(read(session, 500)).toHaveLength(0);
    logged('data size in PRE_COPY 60\n');
    expect(device.stopCopyLength()).toBe(60);

    logged('SET PRE_COPY again (already there) 0 data_fd=-1');
    expect(device.setState(V2.PRE_COPY)).toBeUndefined();
    logged('SET PRE_COPY_P2P 0 data_fd=-1\nin P2P PRECOPY_INFO -> 0 initial=0 dirty=0');
    expect(device.setState(V2.PRE_COPY_P2P)).toBeUndefined();
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0 });
    logged('SET STOP_COPY 0 data_fd=-1 state=STOP_COPY (original fd keeps streaming)');
    expect(device.setState(V2.STOP_COPY)).toBeUndefined();
    logged('in STOP_COPY PRECOPY_INFO -> -1 EINVAL');
    expect(outcome(() => session.precopyInfo())).toBe('EINVAL');

    logged('read(7)=7 read(7)=7 read(7)=7 read(7)=7 read(7)=7 read(7)=1 read(7)=0');
    const pieces = Array.from({ length: 7 }, () => read(session, 7));
    expect(pieces.map((piece) => piece.length)).toEqual([7, 7, 7, 7, 7, 1, 0]);
    logged('total in STOP_COPY 36; read after end again -> 0');
    expect(read(session, 7)).toHaveLength(0);
    expect(join(pieces)[SCR]).toBe(0x77);
    expect(loggedBytes('stop-copy')[SCR]).toBe(0x77);
  });

  test('after STOP the old fd reads ENODEV and has no precopy info', () => {
    const { device, session } = inPreCopy();
    device.setState(V2.STOP_COPY);
    logged('SET STOP 0 data_fd=-1; read(old fd) -> -1 ENODEV; old fd PRECOPY_INFO -> -1 EINVAL');
    device.setState(V2.STOP);
    expect(outcome(() => read(session, 1))).toBe('ENODEV');
    expect(outcome(() => session.precopyInfo())).toBe('EINVAL');
  });

  test('a cancelled session and its successor are told apart', () => {
    const { device, session: old } = inPreCopy();
    device.setState(V2.RUNNING);
    logged('cancel -> RUNNING 0; read(old fd) -1 ENODEV; old PRECOPY_INFO -> -1 EINVAL');
    expect(outcome(() => read(old, 1))).toBe('ENODEV');
    expect(outcome(() => old.precopyInfo())).toBe('EINVAL');
    const next = device.setState(V2.PRE_COPY);
    logged(
      'old fd: read(old) -1 ENODEV; OLD FD PRECOPY_INFO -> -1 ENODEV\nNEW FD PRECOPY_INFO -> 0 initial=24 dirty=0',
    );
    expect(outcome(() => read(old, 1))).toBe('ENODEV');
    expect(outcome(() => old.precopyInfo())).toBe('ENODEV');
    expect(next?.precopyInfo()).toEqual({ initialBytes: 24, dirtyBytes: 0 });
    logged('read(new) 24\n');
    expect(read(next, 500)).toEqual(loggedBytes('precopy'));
  });

  test('closing the data fd changes no state', () => {
    const { device, session } = inPreCopy();
    session.close();
    logged('closed data fd while in PRE_COPY: state=PRE_COPY; -> STOP_COPY 0 data_fd=-1');
    expect(device.getState()).toBe(V2.PRE_COPY);
    expect(device.setState(V2.STOP_COPY)).toBeUndefined();
  });

  test.each([
    ['mtty', 60, 'direct RUNNING->STOP_COPY: one read(500) -> 60'],
    ['mtty,ports=2', 96, '154:direct RUNNING->STOP_COPY: one read(500) -> 96'],
  ])('%s gives %i bytes in one read without pre-copy', (spec, size, line) => {
    const { device } = v2Sim(spec);
    logged(line);
    expect(read(device.setState(V2.STOP_COPY), 500)).toHaveLength(size);
  });

  test('two ports: 72 bytes in STOP_COPY, 96 in all', () => {
    const { device } = v2Sim('mtty,ports=2');
    logged('DEVICE_STATE GET = RUNNING; DATA_SIZE = 96');
    expect(device.stopCopyLength()).toBe(96);
    const session = device.setState(V2.PRE_COPY);
    expect(read(session, 500)[16]).toBe(2);
    device.setState(V2.STOP_COPY);
    logged('143:total in STOP_COPY 72');
    expect(read(session, 500)).toHaveLength(72);
  });
});

describe('sim mtty, reset as in Linux 6.12', () => {
  test.each([
    ['STOP', false],
    ['RUNNING', false],
    ['STOP_COPY', true],
    ['RESUMING', true],
    ['RUNNING_P2P', false],
    ['PRE_COPY', true],
    ['PRE_COPY_P2P', true],
  ] as const)('in %s leads to RUNNING, keeps the registers and ends the session', (name, hasFd) => {
    logged(`RESET in ${name.padEnd(12)} 0 now=RUNNING SCR=42${hasFd ? ' data fd: -1 ENODEV' : ''}\n`);
    const { device, bar } = v2Sim('mtty');
    bar[SCR] = 0x42;
    if (name !== 'RUNNING') device.setState(V2[name]);
    const session = device.openSession();
    expect(session !== undefined).toBe(hasFd);
    device.reset();
    expect([device.getState(), bar[SCR]]).toEqual([V2.RUNNING, 0x42]);
    expect(device.openSession()).toBeUndefined();
    const use = name === 'RESUMING' ? 'write' : 'read';
    if (session !== undefined) expect(outcome(() => session[use](new Uint8Array(1)))).toBe('ENODEV');
  });
});
