import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { VFIO_DEVICE_RESET } from '../../src/abi/vfio-ioctl.ts';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature_mig_state,
} from '../../src/abi/vfio-v2.ts';
import { hasFeature } from '../../src/kernel/feature.ts';
import { kernelDevice } from '../../src/kernel/identify.ts';
import { pciId } from '../../src/kernel/pci-id.ts';
import { KernelV1Device } from '../../src/kernel/v1-device.ts';
import { KernelV2Device } from '../../src/kernel/v2-device.ts';
import type { RegionInfo } from '../../src/kernel/device-info.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { failed, FakeVfio, typeCap } from '../support/fake-vfio.ts';

let fake = new FakeVfio();
vi.mock('../../src/sys/ioctl.ts', () => ({
  ioctl: (...args: Parameters<FakeVfio['ioctl']>) => fake.ioctl(...args),
  ioctlValue: (...args: Parameters<FakeVfio['ioctlValue']>) => fake.ioctlValue(...args),
}));

/** A u64 feature that can be asked for. */
const u64 = (value: bigint): { get(data: Uint8Array): void } => ({
  get: (data) => new DataView(data.buffer, data.byteOffset).setBigUint64(0, value, true),
});

describe('with a file in the place of the device', () => {
  let directory = '';
  let path = '';
  let fd = -1;
  beforeEach(() => {
    fake = new FakeVfio();
    directory = mkdtempSync(join(tmpdir(), 'shim-kernel-'));
    path = join(directory, 'device');
    writeFileSync(path, noise(65_536));
    fd = openSync(path, 'r+');
  });
  afterEach(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  const region = (more: Partial<RegionInfo> = {}): RegionInfo => ({
    index: 9,
    flags: 7,
    size: 20_480,
    offset: 4096n,
    type: { type: 3, subtype: 1 },
    sparse: undefined,
    ...more,
  });

  describe('KernelV1Device', () => {
    it('reads and writes at the place of its region', () => {
      const device = new KernelV1Device({ number: fd }, region(), false);
      const into = new Uint8Array(8);
      device.read(16, into);
      expect(into).toBeBytes(noise(65_536).subarray(4112, 4120));
      device.write(5000, Uint8Array.of(1, 2, 3));
      expect([...readFileSync(path).subarray(9096, 9099)]).toEqual([1, 2, 3]);
      expect(device).toMatchObject({
        regionSize: 20_480,
        dataSection: { offset: 4096, size: 16_384 },
        mapped: undefined,
      });
    });

    it('does not reach beyond its region', () => {
      const device = new KernelV1Device({ number: fd }, region(), false);
      for (const [offset, length] of [
        [20_480, 1],
        [20_476, 8],
        [-8, 8],
      ] as const) {
        expect(outcome(() => device.read(offset, new Uint8Array(length)))).toBe('EINVAL');
        expect(outcome(() => device.write(offset, new Uint8Array(length)))).toBe('EINVAL');
      }
      expect(readFileSync(path)).toBeBytes(noise(65_536));
    });

    it('says so where the driver gives nothing', () => {
      const device = new KernelV1Device({ number: fd }, region({ offset: 65_536n }), false);
      expect(thrownBy(() => device.read(0, new Uint8Array(4)))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
      const closed = new KernelV1Device({ number: -1 }, region(), false);
      expect(outcome(() => closed.read(0, new Uint8Array(4)))).toBe('EBADF');
    });

    it('maps the part that the driver lets it map', () => {
      const sparse = [{ offset: 8192, size: 8192 }];
      const device = new KernelV1Device({ number: fd }, region({ sparse }), true);
      expect(device.dataSection).toEqual({ offset: 8192, size: 8192 });
      expect(device.mapped).toBeBytes(noise(65_536).subarray(12_288, 20_480));
      const unmappable = new KernelV1Device({ number: fd }, region({ sparse, flags: 3 }), true);
      expect(unmappable.mapped).toBeUndefined();
    });

    it('takes no part that lies beyond the region', () => {
      const sparse = [
        { offset: 8192, size: 65_536 },
        { offset: 20_480, size: 4096 },
        { offset: 0, size: 0 },
      ];
      const device = new KernelV1Device({ number: fd }, region({ sparse }), true);
      expect([device.mapped, device.dataSection.offset]).toEqual([undefined, 4096]);
    });

    it('needs room for data', () => {
      expect(thrownBy(() => new KernelV1Device({ number: fd }, region({ size: 32 }), false)).code).toBe('ERR_DEVICE');
      expect(new KernelV1Device({ number: fd }, region({ size: 64 }), false).dataSection).toEqual({
        offset: 32,
        size: 32,
      });
    });

    it('is reset by VFIO_DEVICE_RESET', () => {
      const device = new KernelV1Device({ number: fd }, region(), false);
      expect(thrownBy(() => device.reset())).toMatchObject({ code: 'ERR_DEVICE', errno: 'ENOTTY' });
      fake.answer = (number, request) => (number === fd && request === VFIO_DEVICE_RESET ? 0 : undefined);
      device.reset();
    });
  });

  describe('kernelDevice', () => {
    it('takes v2 where the driver has it, else v1, else says that there is none', () => {
      fake.regions.set(9, { size: 20_480n, caps: typeCap(3, 1) });
      expect(kernelDevice({ number: fd }).protocol).toBe('v1');
      fake.features.set(VFIO_DEVICE_FEATURE_MIGRATION, u64(5n));
      const both = kernelDevice({ number: fd });
      expect(both).toMatchObject({ protocol: 'v2', device: { migrationFlags: 5 } });
      fake.features.clear();
      fake.regions.clear();
      expect(thrownBy(() => kernelDevice({ number: fd }))).toMatchObject({
        code: 'ERR_FEATURE_UNSUPPORTED',
        errno: 'ENOTTY',
      });
    });

    it('hands on what is not about the protocol', () => {
      fake.answer = () => {
        throw failed('EPERM');
      };
      expect(outcome(() => kernelDevice({ number: fd }))).toBe('EPERM');
    });
  });

  describe('pciId', () => {
    it('is read from the configuration space', () => {
      const config = new Uint8Array(256);
      const view = new DataView(config.buffer);
      [0x8086, 0x4941].forEach((id, n) => view.setUint16(2 * n, id, true));
      [0x1234, 0x000f].forEach((id, n) => view.setUint16(0x2c + 2 * n, id, true));
      writeFileSync(path, config);
      const at = { type: undefined, sparse: undefined, flags: 3, index: 7, offset: 0n };
      expect(pciId({ number: fd }, [{ ...at, size: 256 }])).toEqual({ id: '8086:4941', subsystem: '1234:000f' });
      expect(pciId({ number: fd }, [{ ...at, size: 63 }])).toBeUndefined();
      expect(pciId({ number: fd }, [{ ...at, size: 256, index: 6 }])).toBeUndefined();
      expect(pciId({ number: fd }, [{ ...at, size: 256, offset: 240n }])).toBeUndefined();
    });
  });

  describe('KernelV2Device', () => {
    let state: number = V2.RUNNING;
    beforeEach(() => {
      state = V2.RUNNING;
      fake.features.set(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, {
        get: (data) => void vfio_device_feature_mig_state.encode({ device_state: state, data_fd: -1 }, data),
        set(data) {
          state = vfio_device_feature_mig_state.decode(data).device_state;
          const begins = state === V2.STOP_COPY || state === V2.RESUMING;
          const data_fd = begins ? openSync(path, 'r+') : -1;
          vfio_device_feature_mig_state.encode({ device_state: state, data_fd }, data);
        },
      });
    });

    it('asks for the state each time, and refuses one that is none', () => {
      const device = new KernelV2Device({ number: fd }, 1);
      expect(device.getState()).toBe(V2.RUNNING);
      state = V2.ERROR;
      expect(device.getState()).toBe(V2.ERROR);
      state = 8;
      expect(thrownBy(() => device.getState())).toMatchObject({ code: 'ERR_STATE_UNKNOWN', errno: 'EIO' });
    });

    it('has a session from the state that begins one to the one that ends it', () => {
      const device = new KernelV2Device({ number: fd }, 1);
      const session = device.setState(V2.STOP_COPY);
      const into = new Uint8Array(100);
      expect(session?.read(into)).toBe(100);
      expect(into).toBeBytes(noise(65_536).subarray(0, 100));
      expect(device.openSession()).toBe(session);
      expect(device.setState(V2.STOP)).toBeUndefined();
      expect([outcome(() => session?.read(into)), device.openSession()]).toEqual(['ENODEV', undefined]);
    });

    it('loses its session to a reset that others made', () => {
      const device = new KernelV2Device({ number: fd }, 1);
      const session = device.setState(V2.RESUMING);
      state = V2.RUNNING;
      device.getState();
      expect(outcome(() => session?.write(new Uint8Array(1)))).toBe('ENODEV');
    });

    it.each(['EINVAL', 'EBUSY', 'EAGAIN'] as const)('hands on %s of a transition', (errno) => {
      const device = new KernelV2Device({ number: fd }, 1);
      fake.features.set(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, {
        set() {
          throw failed(errno);
        },
      });
      const code = errno === 'EAGAIN' ? 'ERR_NO_DATA_YET' : 'ERR_DEVICE';
      expect(thrownBy(() => device.setState(V2.STOP as V2State))).toMatchObject({ code, errno });
    });

    it('has a length that numbers can tell, or none', () => {
      const device = new KernelV2Device({ number: fd }, 1);
      expect(thrownBy(() => device.stopCopyLength())).toMatchObject({ code: 'ERR_DEVICE', errno: 'ENOTTY' });
      fake.features.set(VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, u64(12_345n));
      expect(device.stopCopyLength()).toBe(12_345);
      fake.features.set(VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, u64(2n ** 64n - 1n));
      expect(device.stopCopyLength()).toBe(Number.MAX_SAFE_INTEGER);
    });
  });

  describe('hasFeature', () => {
    it('asks and changes nothing', () => {
      let used = 0;
      fake.features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_START, { set: () => void (used += 1) });
      const has = (operation: number): boolean =>
        hasFeature({ number: fd }, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, operation);
      expect([has(VFIO_DEVICE_FEATURE_SET), has(VFIO_DEVICE_FEATURE_GET)]).toEqual([true, false]);
      fake.features.clear();
      expect([has(VFIO_DEVICE_FEATURE_SET), used]).toEqual([false, 0]);
    });
  });
});
