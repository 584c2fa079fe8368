import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest';
import {
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
  vfio_device_feature_mig_state,
} from '../../../src/abi/vfio-v2.ts';
import { FdSessions } from '../../../src/kernel/fd-sessions.ts';
import { migrationFlagsOf, PortV2Device } from '../../../src/vfio/client/port-v2-device.ts';
import { V2, type V2State } from '../../../src/v2/states.ts';
import type { DataSessions } from '../../../src/vfio/port.ts';
import { BytePort, ByteSessions, failed, u64 } from '../../support/byte-port.ts';
import { noise } from '../../support/bytes.ts';
import { outcome, thrownBy } from '../../support/errno.ts';

const DATA = noise(65_536);
let directory = '';
let path = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'shim-v2-device-'));
  path = join(directory, 'data');
  writeFileSync(path, DATA);
});
afterEach(() => rmSync(directory, { recursive: true }));

test('a device has no migration flags if its driver has no v2, and not for any other reason', () => {
  const fake = new BytePort();
  const flags = (errno: 'ENOTTY' | 'EINVAL' | 'EPERM'): number => {
    fake.answer = () => {
      throw failed(errno);
    };
    return migrationFlagsOf(fake);
  };
  expect([flags('ENOTTY'), flags('EINVAL'), outcome(() => flags('EPERM'))]).toEqual([0, 0, 'EPERM']);
});

const carriers: readonly { name: string; sessions: () => DataSessions; dataFd: () => number }[] = [
  { name: 'messages', sessions: () => new ByteSessions(DATA), dataFd: () => 0 },
  { name: 'descriptors', sessions: () => new FdSessions(), dataFd: () => openSync(path, 'r+') },
];

describe.each(carriers)('PortV2Device, with data in $name', ({ sessions, dataFd }) => {
  let fake = new BytePort();
  let state: number = V2.RUNNING;
  beforeEach(() => {
    fake = new BytePort(undefined, sessions());
    state = V2.RUNNING;
    fake.features.set(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, {
      get: (data) => void vfio_device_feature_mig_state.encode({ device_state: state, data_fd: -1 }, data),
      set(data) {
        state = vfio_device_feature_mig_state.decode(data).device_state;
        const begins = state === V2.STOP_COPY || state === V2.RESUMING;
        const data_fd = begins ? dataFd() : -1;
        vfio_device_feature_mig_state.encode({ device_state: state, data_fd }, data);
      },
    });
  });

  it('asks for the state each time, and refuses one that is none', () => {
    const device = new PortV2Device(fake, 1);
    expect(device.getState()).toBe(V2.RUNNING);
    state = V2.ERROR;
    expect(device.getState()).toBe(V2.ERROR);
    state = 8;
    expect(thrownBy(() => device.getState())).toMatchObject({ code: 'ERR_STATE_UNKNOWN', errno: 'EIO' });
  });

  it('has a session from the state that begins one to the one that ends it', () => {
    const device = new PortV2Device(fake, 1);
    const session = device.setState(V2.STOP_COPY);
    const into = new Uint8Array(100);
    expect(session?.read(into)).toBe(100);
    expect(into).toBeBytes(DATA.subarray(0, 100));
    expect(device.openSession()).toBe(session);
    expect(device.setState(V2.STOP)).toBeUndefined();
    expect([outcome(() => session?.read(into)), device.openSession()]).toEqual(['ENODEV', undefined]);
  });

  it('loses its session to a reset that others made', () => {
    const device = new PortV2Device(fake, 1);
    const session = device.setState(V2.RESUMING);
    state = V2.RUNNING;
    device.getState();
    expect(outcome(() => session?.write(new Uint8Array(1)))).toBe('ENODEV');
  });

  it('keeps its session where the answer says no data_fd and the new state has one', () => {
    const device = new PortV2Device(fake, 1);
    const session = device.setState(V2.STOP_COPY);
    fake.features.set(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, { set: () => {} });
    expect(device.setState(V2.STOP_COPY)).toBeUndefined();
    expect([device.openSession(), outcome(() => session?.read(new Uint8Array(1)))]).toEqual([session, 'OK']);
  });

  it('has no session after VFIO_DEVICE_RESET, unless the driver refuses that', () => {
    const device = new PortV2Device(fake, 1);
    const session = device.setState(V2.STOP_COPY);
    expect(thrownBy(() => device.reset())).toMatchObject({ code: 'ERR_DEVICE', errno: 'ENOTTY' });
    expect(device.openSession()).toBe(session);
    fake.answer = (request) => request === 'VFIO_DEVICE_RESET';
    device.reset();
    expect(device.openSession()).toBeUndefined();
    expect(outcome(() => session?.read(new Uint8Array(1)))).toBe('ENODEV');
  });

  it.each(['EINVAL', 'EBUSY', 'EAGAIN'] as const)('hands on %s of a transition', (errno) => {
    const device = new PortV2Device(fake, 1);
    fake.features.set(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, {
      set() {
        throw failed(errno);
      },
    });
    const code = errno === 'EAGAIN' ? 'ERR_NO_DATA_YET' : 'ERR_DEVICE';
    expect(thrownBy(() => device.setState(V2.STOP as V2State))).toMatchObject({ code, errno });
  });

  it('asks for precopy info of the second version, and leaves it to the kernel to forget that', () => {
    const device = new PortV2Device(fake, 7);
    expect(thrownBy(() => device.precopyInfoV2(true))).toMatchObject({ errno: 'ENOTTY' });
    const data: number[] = [];
    fake.features.set(VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, { set: (bytes) => data.push(bytes.length) });
    device.precopyInfoV2(true);
    device.precopyInfoV2(false);
    expect(data).toEqual([0]);
  });

  it('has a length that numbers can tell, or none', () => {
    const device = new PortV2Device(fake, 1);
    expect(thrownBy(() => device.stopCopyLength())).toMatchObject({ code: 'ERR_DEVICE', errno: 'ENOTTY' });
    fake.features.set(VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, u64(12_345n));
    expect(device.stopCopyLength()).toBe(12_345);
    fake.features.set(VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, u64(2n ** 64n - 1n));
    expect(device.stopCopyLength()).toBe(Number.MAX_SAFE_INTEGER);
  });
});
