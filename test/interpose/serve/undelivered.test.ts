import { readdirSync } from 'node:fs';
import { expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  vfio_device_info,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../../../src/abi/vfio.ts';
import {
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_mig_state,
} from '../../../src/abi/vfio-v2.ts';
import { V1 } from '../../../src/v1/states.ts';
import { V2 } from '../../../src/v2/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { noise } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { getState, setState } from '../../support/v2-puppet.ts';
import { BAR0_AT, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';
import { inShort } from '../../support/runs.ts';
import { patient } from '../../support/patience.ts';

const SIZE = 64 * 1024;
const BAD = 8n;

/** Where two byte strings part; undefined where they do not. */
function parting(a: Uint8Array, b: Uint8Array): number | undefined {
  if (a.length === b.length && Buffer.compare(a, b) === 0) return undefined;
  let at = 0;
  while (at < Math.min(a.length, b.length) && a[at] === b[at]) at += 1;
  return at;
}

describeWithCompiler('an answer that cannot be delivered', () => {
  const start = useShimRuns();

  async function open(spec: string, options: readonly string[]): Promise<{ device: DevicePuppet; container: number }> {
    const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: [spec], options })));
    const { devices, container } = await user.openDevices();
    const device = devices[0] as DevicePuppet;
    await user.puppet.memory('data', SIZE);
    await user.puppet.memory('constant', 4096);
    value(await user.puppet.call('mprotect', ['$constant', 4096, PROT_READ]));
    return { device, container };
  }

  /** The guest writes to the device: 16 KiB of noise at its beginning and at its end. */
  async function fill(device: DevicePuppet): Promise<Uint8Array> {
    const memory = new Uint8Array(SIZE);
    for (const [seed, at] of [
      [5, 0],
      [6, SIZE - 16384],
    ] as const) {
      memory.set(noise(16384, seed), at);
      value(await device.user.pwrite(device.fd, noise(16384, seed), BAR0_AT + BigInt(at)));
    }
    return memory;
  }

  async function memoryOf(device: DevicePuppet): Promise<Uint8Array> {
    const pieces = [];
    for (let at = 0; at < SIZE; at += 32768) {
      pieces.push((await device.user.pread(device.fd, 32768, BAR0_AT + BigInt(at))).bytes);
    }
    return Buffer.concat(pieces);
  }

  it.each(
    inShort(
      [
        ['qat', []],
        ['vendor-v1,section=16K', []],
        ['vendor-v1,section=16K', ['--segmentation', 'framed']],
        ['qat', ['--round-trip']],
      ] as [string, string[]][],
      (_, n) => n % 2 === 0,
    ),
  )(
    '%s %s: is read by whoever reads the data fd next, though the supervisor was killed',
    { timeout: patient(120_000) },
    async (driver, more) => {
      const options = ['--present', 'v2', '--data-size', '16K', ...more];
      const { device: source } = await open(`${driver},size=${SIZE}`, options);
      const { puppet } = source.user;
      await fill(source);
      const before = await memoryOf(source);
      const saving = await setState(source, V2.STOP_COPY);
      const pieces: Uint8Array[] = [];
      for (let kills = 0, supervisor = 0; ; kills += 1) {
        for (const at of [BAD, '$constant', '$data+65532'] as const) {
          const inVain = await puppet.call('read', [saving, at, 4096]);
          if (inVain.errno === 'OK') expect(inVain.value, 'the end').toBe(0n);
          else expect(inVain.errno).toBe('EFAULT');
        }
        if (kills < 3) {
          supervisor = await puppet.run.supervisor(supervisor);
          killHard(supervisor);
        }
        const outcome = await puppet.script(`${callText('read', [saving, '$data', 20_000])}; get data 0 20000`);
        if (value(outcome) === 0) break;
        pieces.push(outcome.bytes.subarray(0, value(outcome)));
      }
      await setState(source, V2.STOP);

      const { device: destination } = await open(`${driver},size=${SIZE}`, options);
      const to = destination.user.puppet;
      const resuming = await setState(destination, V2.RESUMING);
      for (const piece of pieces) {
        await to.put('data', piece);
        for (let done = 0; done < piece.length;) {
          expect((await to.call('write', [resuming, BAD, 4096])).errno).toBe('EFAULT');
          done += value(await to.call('write', [resuming, `$data+${done}`, piece.length - done]));
        }
      }
      await setState(destination, V2.RUNNING);
      expect(parting(await memoryOf(destination), before)).toBeUndefined();
    },
  );

  it.each(inShort(['qat', 'vendor-v1,section=16K'], (_, n) => n === 1))(
    '%s: acknowledges no buffer of the region',
    { timeout: patient(120_000) },
    async (driver) => {
      const options = ['--present', 'v1', '--data-size', '16K'];
      const { device: source } = await open(`${driver},size=${SIZE}`, options);
      const { puppet } = source.user;
      await fill(source);
      const before = await memoryOf(source);
      const inVain = async (register: bigint): Promise<void> => {
        for (const at of [BAD, '$constant', '$data+65532'] as const) {
          expect((await puppet.call('pread64', [source.fd, at, 8, source.region + register])).errno).toBe('EFAULT');
        }
      };
      await source.enter(V1.STOP_COPY);
      const buffers: Uint8Array[] = [];
      for (;;) {
        if ((await source.read(8, 8)) === 0n) break;
        await inVain(16n);
        await inVain(8n);
        const offset = await source.read(16, 8);
        await inVain(8n); // what it would acknowledge has not been taken yet
        await inVain(24n);
        const size = Number(await source.read(24, 8));
        const outcome = await source.user.pread(source.fd, size, source.region + offset);
        expect(value(outcome)).toBe(size);
        buffers.push(outcome.bytes);
      }
      await source.enter(V1.STOP);
      const { device: destination } = await open(`${driver},size=${SIZE}`, options);
      await destination.enter(V1.RESUMING);
      await destination.load(buffers, undefined, 16384);
      await destination.enter(V1.RUNNING);
      expect(parting(await memoryOf(destination), before)).toBeUndefined();
    },
  );

  it('leaves the state as it was, and no descriptor in the target', { timeout: patient(120_000) }, async () => {
    const { device } = await open(`qat,size=${SIZE}`, ['--present', 'v2']);
    const { puppet } = device.user;
    const size = vfio_device_feature.size + vfio_device_feature_mig_state.size;
    const request = (device_state: number): Uint8Array => {
      const bytes = new Uint8Array(size);
      const flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
      vfio_device_feature.encode({ argsz: size, flags }, bytes);
      vfio_device_feature_mig_state.encode({ device_state, data_fd: 77 }, bytes, vfio_device_feature.size);
      return bytes;
    };
    const protect = async (protection: number): Promise<void> => {
      value(await puppet.call('mprotect', ['$constant', 4096, protection]));
    };
    await protect(PROT_READ | PROT_WRITE);
    await puppet.put('constant', request(V2.STOP_COPY));
    await protect(PROT_READ);
    const before = readdirSync(`/proc/${puppet.run.pid}/fd`);
    const loop = 300; // more than there are numbers for data fds
    for (let n = 0; n < loop; n += 1) {
      expect((await puppet.call('ioctl', [device.fd, VFIO_DEVICE_FEATURE, '$constant'])).errno).toBe('EFAULT');
    }
    expect(readdirSync(`/proc/${puppet.run.pid}/fd`)).toEqual(before);
    expect(await getState(device)).toBe(V2.RUNNING);

    // a request that fails says so in data_fd, too
    for (const state of [99, V2.ERROR]) {
      const outcome = await device.user.ioctl(device.fd, VFIO_DEVICE_FEATURE, request(state));
      expect(outcome.errno).toBe('EINVAL');
      expect(vfio_device_feature_mig_state.decode(outcome.bytes, vfio_device_feature.size)).toEqual({
        device_state: state,
        data_fd: -1,
      });
    }
    expect(await setState(device, V2.STOP_COPY)).toBeGreaterThan(0);
  });

  it('resets no device and unmaps nothing', async () => {
    const { device, container } = await open(`qat,size=${SIZE}`, ['--present', 'v1']);
    const { puppet } = device.user;
    const put = async (bytes: Uint8Array): Promise<void> => {
      value(await puppet.call('mprotect', ['$constant', 4096, PROT_READ | PROT_WRITE]));
      await puppet.put('constant', bytes);
      value(await puppet.call('mprotect', ['$constant', 4096, PROT_READ]));
    };
    const map = vfio_iommu_type1_dma_map.encode({ argsz: 32, flags: 1, size: 4096n });
    value(await device.user.ioctl(container, VFIO_IOMMU_MAP_DMA, map));
    await put(vfio_iommu_type1_dma_unmap.encode({ argsz: 24, size: 4096n }));
    expect((await puppet.call('ioctl', [container, VFIO_IOMMU_UNMAP_DMA, '$constant'])).errno).toBe('EFAULT');
    expect((await device.user.ioctl(container, VFIO_IOMMU_MAP_DMA, map)).errno).toBe('EEXIST');
    await device.enter(V1.STOP_COPY);
    await put(vfio_device_info.encode({ argsz: vfio_device_info.size }));
    expect((await puppet.call('ioctl', [device.fd, VFIO_DEVICE_GET_INFO, '$constant'])).errno).toBe('EFAULT');
    expect(await device.state()).toBe(V1.STOP_COPY);
  });
});
