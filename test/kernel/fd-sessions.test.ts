import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, vfio_device_feature_mig_state } from '../../src/abi/vfio-v2.ts';
import { FdSessions } from '../../src/kernel/fd-sessions.ts';
import { KERNEL_LIVE_SIZE, KERNEL_STATE_SIZE } from '../../src/kernel/session-state.ts';
import type { SessionStore } from '../../src/kernel/session-store.ts';
import { PortV2Device } from '../../src/vfio/client/port-v2-device.ts';
import type { OwnedFd } from '../../src/sys/fd.ts';
import { FdStore, socketPair } from '../../src/sys/socket.ts';
import { statePath } from '../../src/v2/fsm.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { BytePort, failed } from '../support/byte-port.ts';

class Killed extends Error {}

/** Where a process may be killed while it changes the state. */
const MOMENTS = ['before SET', 'after SET', 'before the store', 'after the store', 'never'] as const;
type Moment = (typeof MOMENTS)[number];

const data = noise(10_000);

describe('a process that takes a device over', () => {
  let directory = '';
  let file = '';
  let ends: [OwnedFd, OwnedFd];
  let fake = new BytePort();
  let state: V2State = V2.RUNNING;
  let moment: Moment = 'never';
  let refusesToLeave = false;
  const live = new Uint8Array(KERNEL_LIVE_SIZE);
  /** The record of what is under way, as it was when the process was killed: a dead process cleans nothing up. */
  let liveAtDeath: Uint8Array | undefined;

  function die(at: Moment): void {
    if (moment !== at) return;
    liveAtDeath = live.slice();
    throw new Killed();
  }

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'shim-takeover-'));
    file = join(directory, 'data');
    writeFileSync(file, data);
    ends = socketPair();
    state = V2.RUNNING;
    moment = 'never';
    refusesToLeave = false;
    live.fill(0);
    liveAtDeath = undefined;
    fake = new BytePort();
    const [, stateAt] = vfio_device_feature_mig_state.fields.device_state;
    fake.features.set(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, {
      get: (bytes) => new DataView(bytes.buffer, bytes.byteOffset).setUint32(stateAt, state, true),
      set: (bytes) => {
        die('before SET');
        const { device_state } = vfio_device_feature_mig_state.decode(bytes);
        const path = statePath(7, state, device_state);
        if (state === V2.RESUMING && refusesToLeave && path.length > 0) throw failed('EINVAL');
        const begins = path.some((hop) => hop === V2.RESUMING || hop === V2.STOP_COPY || hop === V2.PRE_COPY);
        const goesOn = state === V2.PRE_COPY && device_state === V2.STOP_COPY;
        state = device_state as V2State;
        const fd = begins && !goesOn ? openSync(file, state === V2.RESUMING ? 'w' : 'r') : -1;
        vfio_device_feature_mig_state.encode({ device_state, data_fd: fd }, bytes);
        if (moment === 'after SET' && fd >= 0) closeSync(fd); // as the kernel does for a dead process
        die('after SET');
      },
    });
    fake.answer = (request) => {
      if (request !== 'VFIO_DEVICE_RESET') return false;
      state = V2.RUNNING;
      return true;
    };
  });
  afterEach(() => {
    for (const end of ends) end.close();
    rmSync(directory, { recursive: true });
  });

  /** A process with its working copy of what was committed. */
  function startProcess(committed: Uint8Array): { device: PortV2Device; sessions: FdSessions } {
    const fdStore = new FdStore(ends[0].number, ends[1].number);
    const store: SessionStore = {
      put: (session, fd) => {
        if (moment === 'before the store') fd.close();
        die('before the store');
        fdStore.put(session, fd);
        if (moment === 'after the store') fd.close();
        die('after the store');
      },
      take: () => {
        const kept = fdStore.peek();
        return kept === undefined ? undefined : { session: kept.number, fd: kept.fd };
      },
      clear: () => fdStore.clear(),
    };
    const sessions = new FdSessions({ state: committed.slice(), live, store });
    fake.sessions = sessions;
    return { device: new PortV2Device(fake, 7), sessions };
  }

  /** Kills a process in a change of state, and lets a successor take over and serve the same request again. */
  function changeTwice(from: V2State, to: V2State, at: Moment): PortV2Device {
    const committed = new Uint8Array(KERNEL_STATE_SIZE);
    state = from;
    moment = at;
    const first = startProcess(committed).device;
    try {
      first.getState(); // as a bridge asks first
      first.setState(to);
      liveAtDeath = live.slice();
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
    }
    moment = 'never';
    live.set(liveAtDeath ?? live);
    const { device: successor, sessions } = startProcess(committed);
    sessions.abandonLost(successor);
    if (successor.getState() !== to) successor.setState(to);
    return successor;
  }

  it.each(MOMENTS)('goes on with a saving session from its first byte: killed %s', (at) => {
    for (const [from, to] of [
      [V2.RUNNING, V2.PRE_COPY],
      [V2.STOP, V2.STOP_COPY],
      [V2.RUNNING, V2.STOP_COPY],
    ] as const) {
      const device = changeTwice(from, to, at);
      expect(device.getState()).toBe(to);
      const bytes = new Uint8Array(data.length);
      let filled = 0;
      for (let last = 1; last > 0; filled += last) last = device.openSession()?.read(bytes.subarray(filled)) ?? 0;
      expect(filled).toBe(data.length);
      expect(bytes).toBeBytes(data);
    }
  });

  it.each(MOMENTS)('goes on with a resuming session, where the driver lets go of it and where not: killed %s', (at) => {
    for (const refuses of [false, true]) {
      refusesToLeave = refuses;
      const device = changeTwice(V2.RUNNING, V2.RESUMING, at);
      expect(device.getState()).toBe(V2.RESUMING);
      const bytes = noise(3000);
      for (let done = 0; done < bytes.length;) {
        done += device.openSession()?.write(bytes.subarray(done)) ?? Number.NaN;
      }
      const written = new Uint8Array(bytes.length);
      const fd = openSync(file, 'r');
      expect(readSync(fd, written)).toBe(bytes.length);
      closeSync(fd);
      expect(written).toBeBytes(bytes);
    }
  });

  it('leaves a session alone that the VMM has begun itself', () => {
    state = V2.PRE_COPY; // by VFIO_DEVICE_FEATURE of a VMM that speaks v2
    const { device: successor, sessions } = startProcess(new Uint8Array(KERNEL_STATE_SIZE));
    sessions.abandonLost(successor);
    expect([successor.getState(), fake.asked.filter((name) => name.includes('SET'))]).toEqual([V2.PRE_COPY, []]);
  });

  it('finds no session where a change ended one', () => {
    for (const at of MOMENTS) {
      state = V2.RUNNING;
      moment = 'never';
      const committed = new Uint8Array(KERNEL_STATE_SIZE);
      fake.sessions = new FdSessions({ state: committed, live });
      const first = new PortV2Device(fake, 7);
      const session = first.setState(V2.STOP_COPY);
      expect(session?.read(new Uint8Array(10))).toBe(10);
      const device = changeTwice(V2.STOP_COPY, V2.STOP, at);
      expect([device.getState(), device.openSession()]).toEqual([V2.STOP, undefined]);
      expect(outcome(() => session?.read(new Uint8Array(10)))).toBe('OK'); // the file, which is no driver
      session?.close();
    }
  });
});
