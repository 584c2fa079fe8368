import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { errnoNumber } from '../../src/abi/errno.ts';
import { FdSessions } from '../../src/kernel/fd-sessions.ts';
import {
  KERNEL_LIVE_SIZE,
  kernel_live,
  KERNEL_STATE_SIZE,
  kernel_state,
  Live,
} from '../../src/kernel/session-state.ts';
import type { SessionStore } from '../../src/kernel/session-store.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { trySyscall } from '../../src/sys/libc.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, outcome } from '../support/errno.ts';

const data = noise(1000);
let directory = '';
let file = '';
let state: Uint8Array;
let live: Uint8Array;
let stored: string[];
/** What the store has, and gives to whoever asks. */
let kept: { session: number; fd: OwnedFd } | undefined;
const opened = new Set<number>();

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'shim-sessions-'));
  file = join(directory, 'data');
  writeFileSync(file, data);
  state = new Uint8Array(KERNEL_STATE_SIZE);
  live = new Uint8Array(KERNEL_LIVE_SIZE);
  stored = [];
  kept = undefined;
});
afterEach(() => {
  for (const fd of opened) if (isOpen(fd)) closeSync(fd);
  opened.clear();
  rmSync(directory, { recursive: true });
});

function open(flags = 'r'): number {
  const fd = openSync(file, flags);
  opened.add(fd);
  return fd;
}

const isOpen = (fd: number): boolean => trySyscall('lseek', fd, 0, 1) >= 0;
const my = (): ReturnType<typeof kernel_state.view> => kernel_state.view(state);
const record = (): ReturnType<typeof kernel_live.view> => kernel_live.view(live);

function sessions(): FdSessions {
  const store: SessionStore = {
    put: (session) => stored.push(`put ${session}`),
    take: () => kept,
    clear: () => stored.push('clear'),
  };
  return new FdSessions({ store, state, live });
}

const read = (session: V2DataSession | undefined, length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  return bytes.subarray(0, session?.read(bytes));
};

describe('FdSessions', () => {
  it('notes a change of state for as long as it is under way, whether it succeeds or fails', () => {
    const mine = sessions();
    expect(mine.change(() => record().changing)).toBe(1);
    expect(record().changing).toBe(0);
    const fails = (): void =>
      mine.change(() => {
        throw failure('EIO');
      });
    expect(outcome(fails)).toBe('EIO');
    expect(record().changing).toBe(0);
  });

  it('numbers the sessions, and keeps the data fd of the one that goes on', () => {
    const mine = sessions();
    const first = open();
    const session = mine.begin(first);
    expect([stored, my().session, mine.current(() => V2.PRE_COPY)]).toEqual([['clear', 'put 1'], 1, session]);
    const second = open();
    mine.begin(second);
    expect([stored, my().session]).toEqual([['clear', 'put 1', 'clear', 'put 2'], 2]);
    expect([isOpen(first), isOpen(second)]).toEqual([false, true]);
    mine.end();
    expect(isOpen(second)).toBe(false);
  });

  it('clears the store once: of what an earlier process may have left, then of its own', () => {
    const mine = sessions();
    mine.end();
    mine.end();
    expect(stored).toEqual(['clear']);
    mine.begin(open());
    mine.end();
    mine.end();
    expect(stored).toEqual(['clear', 'put 1', 'clear']);
    expect(mine.current(() => V2.STOP)).toBeUndefined();
  });

  it('tells of each call on a data fd', () => {
    read(sessions().begin(open()), 30);
  });
});

describe('FdSessions of a process that takes over', () => {
  /** The store has the data fd of session `session`. */
  function keep(session: number, flags = 'r'): number {
    const fd = open(flags);
    kept = { session, fd: new OwnedFd(fd) };
    return fd;
  }

  it('goes on with a session that was committed, from what its record says', () => {
    my().session = 2;
    Object.assign(record(), { session: 2, status: Live.FAILED, errno: errnoNumber('EFAULT'), position: 5 });
    keep(2);
    const session = sessions().current(() => V2.STOP_COPY);
    expect([session?.read(new Uint8Array(100)), my().session, my().position]).toEqual([5, 2, 5]);
    expect(outcome(() => session?.read(new Uint8Array(100)))).toBe('EFAULT');
  });

  it('begins anew with a session that was not', () => {
    my().session = 2;
    my().position = 700;
    Object.assign(record(), { session: 2, status: Live.CALLING, position: 700, tracked: 1 });
    keep(3);
    const session = sessions().current(() => V2.PRE_COPY);
    expect([my().session, my().position, record().status, record().tracked]).toEqual([3, 0, Live.IDLE, 0]);
    expect(read(session, 100)).toBeBytes(data.subarray(0, 100));
  });

  it('takes a call that was cut off for a write in RESUMING, and for a read otherwise', () => {
    const answers = [V2.RESUMING, V2.PRE_COPY].map((now) => {
      Object.assign(my(), { session: 2, position: 0 });
      Object.assign(record(), { session: 2, status: Live.CALLING, position: 0, tracked: 1 });
      const fd = keep(2, 'r+');
      trySyscall('lseek', fd, 50, 0); // the driver has moved 50 bytes
      const session = sessions().current(() => now);
      return outcome(() => (now === V2.RESUMING ? session?.write(noise(1)) : session?.read(new Uint8Array(1))));
    });
    expect(answers).toEqual(['EIO', 'OK']);
  });

  it.each([1, 4])('closes the data fd of session %i, as 2 or 3 is the one that can go on', (session) => {
    my().session = 2;
    const fd = keep(session);
    expect(sessions().current(() => V2.STOP_COPY)).toBeUndefined();
    expect([isOpen(fd), my().session]).toEqual([false, 2]);
  });

  it.each([2, 3])('closes the data fd of session %i if the device is in a state that has none', (session) => {
    my().session = 2;
    const fd = keep(session);
    expect(sessions().current(() => V2.STOP)).toBeUndefined();
    expect([isOpen(fd), my().session]).toEqual([false, 2]);
  });

  /** What a successor asks of a device in this state, of which a change of state was under way. */
  function asked(now: V2State, { session = false, refuses = false, changing = 1 } = {}): string[] {
    const log: string[] = [];
    const device: V2Device = {
      migrationFlags: 7,
      getState: () => now,
      setState(target) {
        log.push(`to ${target}`);
        if (refuses) throw failure('EINVAL');
        return undefined;
      },
      openSession: () => (session ? ({} as V2DataSession) : undefined),
      stopCopyLength: () => 0,
      reset: () => log.push('reset'),
    };
    record().changing = changing;
    sessions().abandonLost(device);
    expect(record().changing).toBe(0);
    return log;
  }

  it.each([V2.RESUMING, V2.PRE_COPY, V2.PRE_COPY_P2P, V2.STOP_COPY])(
    'gives up a session of which it has no data fd, in state %i',
    (now) => {
      const back = `to ${now === V2.STOP_COPY ? V2.STOP : V2.RUNNING}`;
      expect(asked(now)).toEqual([back]);
      expect(asked(now, { refuses: true })).toEqual([back, 'reset']);
    },
  );

  it('leaves a device alone that has its session, or none to lose, or was not changing its state', () => {
    expect(asked(V2.STOP_COPY, { session: true })).toEqual([]);
    expect([V2.RUNNING, V2.STOP, V2.RUNNING_P2P, V2.ERROR].flatMap((now) => asked(now))).toEqual([]);
    expect(asked(V2.STOP_COPY, { changing: 0 })).toEqual([]);
  });
});
