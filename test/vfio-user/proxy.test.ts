import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  VFIO_USER_DEVICE_FEATURE,
  VFIO_USER_DIRTY_PAGES,
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_MIG_DATA_READ,
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
  vfio_user_dma_map,
  vfio_user_mig_data,
  vfio_user_region_access,
} from '../../src/abi/vfio-user.ts';
import { vfio_device_feature, vfio_device_feature_mig_state } from '../../src/abi/vfio-v2.ts';
import type { ProxyOrder } from '../../src/cli/proxy.ts';
import { stateName } from '../../src/device/migratable.ts';
import { createSharedMemory, mapSharedMemory } from '../../src/sys/memory.ts';
import { V1RegisterAccess } from '../../src/v1/registers.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2 } from '../../src/v2/states.ts';
import { dmaLogOf } from '../../src/vfio/client/port-dma-log.ts';
import { sendPieces } from '../../src/sys/message-socket.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';

const services = useServices();
const SIZE = 65_536;
const PAGE = 4096;

const behind = async (device: string, options: Partial<ProxyOrder>): Promise<string> =>
  services().proxy(await services().serve(device), options);

describe('across the proxy, a client', () => {
  it.each([
    ['v1', 'qat', { present: 'v1' }],
    ['v1', 'mlx5', { present: 'v1', dropPrecopy: true }],
    ['v2', 'vendor-v1', { present: 'v2' }],
    ['v2', 'spdk-v1', { present: 'v2', segmentation: 'framed' }],
    ['v2', 'qat', { present: 'v2' }],
    ['v1', 'vendor-v1', { present: 'v1' }],
    ['v2', 'qat', { present: 'v2', roundTrip: true }],
    ['v1', 'vendor-v1', { present: 'v1', roundTrip: true }],
  ] as const)('that speaks %s saves and restores %s with %j', async (protocol, driver, options) => {
    const source = new TestClient(await behind(`${driver},size=64K,seed=3`, options));
    const destination = new TestClient(await behind(`${driver},size=64K,seed=4`, options));
    expect([source.device.protocol, destination.device.protocol]).toEqual([protocol, protocol]);
    const before = source.bar(SIZE);
    destination.restore(source.save());
    expect(destination.bar(SIZE)).toBeBytes(before);
    source.close();
    destination.close();
  });

  it.each([
    ['qat', 'v1', VFIO_USER_MIG_DATA_READ],
    ['vendor-v1', 'v2', VFIO_USER_REGION_READ],
  ] as const)(
    'is told in time if %s is never ready to be saved, in %s, and the next one saves it',
    async (driver, present, command) => {
      const { path, alter } = await services().relay(await services().serve(`${driver},size=64K`));
      const proxy = await services().proxy(path, { present, timeout: 400 });
      const first = new TestClient(proxy);
      const { device } = first;
      if (device.protocol === 'v1') {
        const registers = new V1RegisterAccess(device.device);
        registers.setDeviceState(V1.STOP_COPY);
        alter({ command, fails: 'EAGAIN' });
        expect(() => registers.pendingBytes()).toThrow('ETIMEDOUT');
      } else if (device.protocol === 'v2') {
        const session = device.device.setState(V2.STOP_COPY);
        alter({ command, fails: 'EAGAIN' });
        expect(() => session?.read(new Uint8Array(100))).toThrow('ETIMEDOUT');
      }
      first.close();
      alter({});
      const next = new TestClient(proxy);
      expect(stateName(next.device)).toBe('RUNNING');
      expect(next.save().length).toBeGreaterThan(0);
      next.close();
    },
  );

  it.each([
    ['qat', 'v1'],
    ['vendor-v1', 'v2'],
  ] as const)('is told by %s, in %s, which memory it has written to', async (driver, present) => {
    const client = new TestClient(await behind(`${driver},size=64K,dma=1000`, { present }));
    using memory = createSharedMemory('guest', 16 * PAGE);
    const { bytes } = mapSharedMemory(memory.number, 16 * PAGE);
    const ask = (command: number, body: Uint8Array, fds: number[] = []): Uint8Array => {
      const reply = client.server.link.ask({ command, name: String(command), body, fds });
      expect(reply.errno).toBeUndefined();
      return reply.body;
    };
    const range = { iova: 0n, length: BigInt(16 * PAGE) };
    ask(VFIO_USER_DMA_MAP, vfio_user_dma_map.encode({ argsz: 32, flags: 3, addr: 0n, size: range.length }), [
      memory.number,
    ]);
    const log = present === 'v2' ? dmaLogOf(client.port) : undefined;
    if (log === undefined) expect(ask(VFIO_USER_DIRTY_PAGES, Uint8Array.of(8, 0, 0, 0, 1, 0, 0, 0))).toHaveLength(0);
    else log.start([range], 4096n);
    client.port.write({ index: 7, offset: 0n }, 4, Uint8Array.of(4, 0)); // a bus master
    const written = (): number[] => Array.from({ length: 16 }, (_, n) => n).filter((n) => bytes[n * PAGE] !== 0);
    while (written().length === 0) client.bar(8);
    client.port.write({ index: 7, offset: 0n }, 4, Uint8Array.of(0, 0)); // none any more
    client.bar(8);
    const bits = new Uint8Array(8);
    if (log !== undefined) log.readAndClear(range, { pageSize: 4096n, bits });
    else {
      // DMA_UNMAP with its dirty bitmap: struct vfio_user_dma_unmap, struct vfio_user_bitmap
      const body = new Uint8Array(40);
      const view = new DataView(body.buffer);
      view.setUint32(0, 48, true);
      view.setUint32(4, 1, true);
      view.setBigUint64(16, range.length, true);
      view.setBigUint64(24, 4096n, true);
      view.setBigUint64(32, 8n, true);
      bits.set(ask(VFIO_USER_DMA_UNMAP, body).subarray(40));
    }
    const told = Array.from({ length: 16 }, (_, n) => n).filter((n) => ((bits[n >> 3] ?? 0) >> (n & 7)) % 2 === 1);
    expect(told).toEqual(written());
    client.close();
  });

  it('gets all that it asked for of MIG_DATA_READ, with zeros behind what there is', async () => {
    const client = new TestClient(await behind('vendor-v1,size=64K', { present: 'v2' }));
    if (client.device.protocol !== 'v2') throw new Error('not v2');
    client.device.device.setState(V2.STOP_COPY);
    const size = 200_000;
    const body = vfio_user_mig_data.encode({ argsz: 8 + size, size });
    const reply = client.server.link.request({ command: VFIO_USER_MIG_DATA_READ, name: 'MIG_DATA_READ', body });
    expect(reply).toHaveLength(8 + size);
    const given = vfio_user_mig_data.decode(reply).size;
    expect(given).toBeGreaterThan(SIZE);
    expect(given).toBeLessThan(size);
    expect(reply.subarray(8 + given).every((byte) => byte === 0)).toBe(true);
    client.close();
  });
});

describe('the proxy', () => {
  it.each([
    ['vendor-v1', 'v2', 3],
    ['vendor-v1', 'v1', 4],
    ['qat', 'v1', 2],
    ['qat', 'v2', 4],
  ] as const)(
    'lets %s run again if its client, which sees it in %s, goes in the midst of a migration',
    async (driver, present, v1) => {
      const server = await services().serve(`${driver},size=64K`);
      const proxy = await services().proxy(server, { present });
      const client = new TestClient(proxy);
      const { device } = client;
      if (device.protocol === 'v1') new V1RegisterAccess(device.device).setDeviceState(v1);
      else if (device.protocol === 'v2') device.device.setState(v1 === 4 ? V2.RESUMING : V2.PRE_COPY);
      expect(stateName(device)).not.toBe('RUNNING');
      client.close();
      const next = new TestClient(proxy);
      expect(stateName(next.device)).toBe('RUNNING');
      next.close();
    },
  );

  it('hands no state to an old server that would end it', async () => {
    const client = new TestClient(await behind('vendor-v1,size=64K', { present: 'v1' }));
    const body = new Uint8Array(20);
    vfio_user_region_access.encode({ region: 9, count: 4 }, body);
    for (const value of [5, 6, 7, 8, 9, 0x100, 0xffff_ffff]) {
      new DataView(body.buffer).setUint32(16, value, true);
      const { errno } = client.server.link.ask({ command: VFIO_USER_REGION_WRITE, name: 'device_state', body });
      expect([value, errno]).toEqual([value, 'EINVAL']);
    }
    expect(stateName(client.device)).toBe('RUNNING');
    client.close();
  });

  it('hands no state to a v2 server that is none', async () => {
    const client = new TestClient(await behind('qat,size=64K', { present: 'v2' }));
    const body = new Uint8Array(16);
    vfio_device_feature.encode({ argsz: 16, flags: 0x2_0002 }, body);
    for (const device_state of [8, 9, 0xffff_ffff]) {
      vfio_device_feature_mig_state.encode({ device_state, data_fd: -1 }, body, 8);
      const { errno } = client.server.link.ask({ command: VFIO_USER_DEVICE_FEATURE, name: 'SET', body });
      expect([device_state, errno]).toEqual([device_state, 'EINVAL']);
    }
    client.close();
  });

  it('tells a client whose server is not there, and serves the next once it is', async () => {
    const proxy = await services().proxy(`${services().directory}/device-2`, {});
    expect(() => new TestClient(proxy)).toThrow('ENOENT');
    await services().serve('qat,size=64K');
    const client = new TestClient(proxy);
    expect(client.bar(8)).toHaveLength(8);
    client.close();
  });

  it('outlives clients that send anything, and serves the next', async () => {
    const proxy = await behind('qat,size=64K', {});
    const message = fc.record({
      command: fc.nat(20),
      flags: fc.constantFrom(0, 0x10, 1),
      body: fc.uint8Array({ maxLength: 80 }),
    });
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 6 }), fc.nat(8), (messages, cut) => {
        const client = new TestClient(proxy, { timeout: 60_000 });
        const bytes = Buffer.concat(
          messages.flatMap(({ command, flags, body }, n) => {
            const head = Buffer.alloc(16);
            head.writeUInt16LE(n, 0);
            head.writeUInt16LE(command, 2);
            head.writeUInt32LE(16 + body.length, 4);
            head.writeUInt32LE(flags, 8);
            return [head, body];
          }),
        );
        const { fd } = client.server.link.connection;
        sendPieces(fd, [bytes.subarray(0, Math.max(1, bytes.length - cut))], []);
        client.close();
      }),
      { numRuns: 40 },
    );
    const client = new TestClient(proxy, { timeout: 60_000 });
    expect(stateName(client.device)).toBe('RUNNING');
    client.close();
  });
});
