import { describe, expect, it } from 'vitest';
import {
  VFIO_USER_DEVICE_SET_IRQS,
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_DIRTY_PAGES,
  VFIO_USER_DMA_WRITE,
  vfio_user_dma_map,
  vfio_user_dma_region_access,
  vfio_user_dma_unmap,
} from '../../src/abi/vfio-user.ts';
import { vfio_irq_set } from '../../src/abi/vfio-device.ts';
import { stateName } from '../../src/device/migratable.ts';
import { createEventFd, type OwnedFd } from '../../src/sys/fd.ts';
import { syscall, trySyscall, withAddress } from '../../src/sys/libc.ts';
import { createSharedMemory, mapSharedMemory } from '../../src/sys/memory.ts';
import { pciConfig } from '../../src/sim/pci.ts';
import { parseSpec } from '../../src/sim/spec.ts';
import { V1RegisterAccess } from '../../src/v1/registers.ts';
import { V2 } from '../../src/v2/states.ts';
import { dmaLogOf } from '../../src/vfio/client/port-dma-log.ts';
import { deviceInfo, regionInfo } from '../../src/vfio/client/device-info.ts';
import { checked } from '../../src/vfio-user/wire/link.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { patient } from '../support/patience.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';

const services = useServices();
const SIZE = 65_536;
const PAGE = 4096;
const PATIENCE = patient(10_000);

/** Asks for something that is not answered by a value, and says with which errno it fails, if it does. */
function refusalOf(
  client: TestClient,
  command: number,
  body: Uint8Array,
  fds: readonly number[] = [],
): string | undefined {
  const reply = client.server.link.ask({ command, name: String(command), body, fds });
  return reply.errno;
}

/** What an eventfd has counted since it was asked last. */
function take(event: OwnedFd): number {
  const count = new BigUint64Array(1);
  withAddress(count, (at) => trySyscall('read', event.number, at, 8));
  return Number(count[0]);
}

function raise(event: OwnedFd): void {
  const one = BigUint64Array.of(1n);
  withAddress(one, (at) => syscall('raise', 'write', event.number, at, 8));
}

describe('a simulated device behind a socket', () => {
  it.each(['qat', 'hisi', 'mlx5', 'pds', 'vendor-v1', 'spdk-v1', 'hisi-v1'])(
    '%s is saved and restored',
    async (driver) => {
      const [from, to] = [
        await services().serve(`${driver},size=64K,seed=3`),
        await services().serve(`${driver},size=64K,seed=4`),
      ];
      const source = new TestClient(from);
      const destination = new TestClient(to);
      const before = source.bar(SIZE);
      expect(destination.bar(SIZE)).not.toEqual(before);
      destination.restore(source.save());
      expect(destination.bar(SIZE)).toBeBytes(before);
      source.close();
      destination.close();
    },
  );

  it.each(['qat', 'vendor-v1'])(
    '%s is reset if its client goes while it saves, and serves the next',
    async (driver) => {
      const path = await services().serve(`${driver},size=64K`);
      const first = new TestClient(path);
      const { device } = first;
      if (device.protocol === 'v2') device.device.setState(V2.PRE_COPY);
      else if (device.protocol === 'v1') new V1RegisterAccess(device.device).setDeviceState(3);
      expect(stateName(device)).toBe('PRE_COPY');
      first.close();
      const second = new TestClient(path);
      expect(stateName(second.device)).toBe('RUNNING');
      second.close();
    },
  );

  it('has the config space and the BARs of one under run, and is reset by what is written there', async () => {
    const spec = 'qat,size=64K,config=4096';
    const client = new TestClient(await services().serve(spec));
    const { port, device } = client;
    const regions = [0, 1, 2, 6, 7].map((index) => regionInfo(port, index)?.size);
    expect(regions).toEqual([65_536, 0, 4096, 0, 4096]);
    const config = new Uint8Array(4096);
    port.read({ index: 7, offset: 0n }, 0, config);
    expect(config).toBeBytes(pciConfig(parseSpec(spec)));
    const table = new Uint8Array(96);
    port.write({ index: 2, offset: 0n }, 0, table);
    port.read({ index: 2, offset: 0n }, 0, table);
    expect(table).toBeBytes(new Uint8Array(96).fill(0xff, 0, 64));

    const PM_CTRL = 0x44;
    const DEVCTL = 0x74;
    const FLR = 0x8000;
    const word = (at: number, value: number): void => {
      port.write({ index: 7, offset: 0n }, at, new Uint8Array(Uint16Array.of(value).buffer));
    };
    if (device.protocol !== 'v2') throw new Error(device.protocol);
    device.device.setState(V2.STOP_COPY);
    word(PM_CTRL, 3);
    expect(device.device.getState()).toBe(V2.STOP_COPY);
    word(DEVCTL, FLR | 0x2810);
    expect(device.device.getState()).toBe(V2.RUNNING);
    port.read({ index: 7, offset: 0n }, 0, config);
    expect(config).toBeBytes(pciConfig(parseSpec(spec)));
    device.device.setState(V2.STOP_COPY);
    word(PM_CTRL, 3);
    port.reset();
    expect(device.device.getState()).toBe(V2.RUNNING);
    port.read({ index: 7, offset: 0n }, 0, config);
    expect(config).toBeBytes(pciConfig(parseSpec(spec)));
    client.close();
  });

  it('has an eventfd for each vector of MSI-X, which its doorbell rings', async () => {
    const client = new TestClient(await services().serve('qat,size=64K'));
    const { port } = client;
    const events = [createEventFd(), createEventFd(), createEventFd()];
    const counted = (): number[] => events.map((event) => take(event));
    const set = (start: number, fds: readonly number[], flags = 0x24): string | undefined => {
      const struct = vfio_irq_set.encode({ argsz: 20, flags, index: 2, start, count: fds.length });
      return refusalOf(client, VFIO_USER_DEVICE_SET_IRQS, struct, [...fds]);
    };
    const ring = (bits: number): void => {
      port.write({ index: 2, offset: 0n }, 0xc00, Uint8Array.of(bits, 0, 0, 0));
    };
    const [first, second, third] = events.map(({ number }) => number) as [number, number, number];
    expect(set(0, [first, second])).toBeUndefined();
    ring(0b11);
    expect(counted()).toEqual([0, 0, 0]); // it is no bus master
    port.write({ index: 7, offset: 0n }, 4, Uint8Array.of(4, 0));
    ring(0b11);
    ring(0b10);
    expect(counted()).toEqual([1, 2, 0]);
    ring(0b1000);
    const pending = new Uint8Array(8);
    port.read({ index: 2, offset: 0n }, 0x800, pending);
    expect(pending).toBeBytes(Uint8Array.of(0b1000, 0, 0, 0, 0, 0, 0, 0));
    expect(set(3, [third])).toBeUndefined();
    expect(counted()).toEqual([0, 0, 1]);
    expect(set(0, [], 0x21)).toBeUndefined(); // MSI-X is off
    ring(0b1111);
    expect(counted()).toEqual([0, 0, 0]);
    client.close();
    for (const event of events) event.close();
  });

  it('unmasks INTx by an eventfd, as KVM asks it to', async () => {
    const client = new TestClient(await services().serve('vendor-v1,size=64K,irq=1000'));
    using trigger = createEventFd();
    using unmask = createEventFd();
    const set = (flags: number, fds: number[]): string | undefined => {
      const struct = vfio_irq_set.encode({ argsz: 20, flags, index: 0, start: 0, count: 1 });
      return refusalOf(client, VFIO_USER_DEVICE_SET_IRQS, struct, fds);
    };
    expect(set(0x24, [trigger.number])).toBeUndefined();
    expect(set(0x14, [unmask.number])).toBeUndefined();
    for (let n = 0; n < 5; n += 1) {
      await poll(() => take(trigger) || undefined, PATIENCE, 'an interrupt');
      expect(set(0x21, [])).toBeUndefined(); // the answer comes when the device has had its turn
      expect(take(trigger)).toBe(1);
      raise(unmask);
    }
    client.close();
  });

  it('refuses what no device answers, and goes on', async () => {
    const client = new TestClient(await services().serve('qat,size=64K'));
    expect(refusalOf(client, 999, new Uint8Array(4))).toBe('EINVAL');
    for (let command = 2; command <= 18; command += 1) {
      if (command === 13) continue; // a reset has no body
      expect([command, refusalOf(client, command, new Uint8Array(1))]).toEqual([command, 'EINVAL']);
    }
    expect(() => client.port.read({ index: 0, offset: 0n }, SIZE, new Uint8Array(1))).toThrow('EINVAL');
    expect(() => client.port.read({ index: 0xdead_beef, offset: 0n }, 0, new Uint8Array(1))).toThrow('EINVAL');
    expect(() => client.port.write({ index: 0, offset: 0n }, 2 ** 53 - 1, new Uint8Array(8))).toThrow('EINVAL');
    expect(deviceInfo(client.port).regions).toBe(9);
    client.close();
  });

  it('raises an interrupt by the eventfd that it was given', async () => {
    const client = new TestClient(await services().serve('qat,size=64K'));
    using event = createEventFd();
    const EVENTFD_TRIGGER = 0x24;
    const NONE_TRIGGER = 0x21;
    const NONE_MASK = 0x09;
    const NONE_UNMASK = 0x11;
    const set = (flags: number, count: number, fds: number[] = []): string | undefined =>
      refusalOf(
        client,
        VFIO_USER_DEVICE_SET_IRQS,
        vfio_irq_set.encode({ argsz: 20, flags, index: 0, start: 0, count }),
        fds,
      );
    expect(set(EVENTFD_TRIGGER, 1, [event.number])).toBeUndefined();
    expect(set(NONE_TRIGGER, 1)).toBeUndefined();
    expect(take(event)).toBe(1);
    expect(set(NONE_MASK, 1)).toBeUndefined();
    expect(set(NONE_TRIGGER, 1)).toBeUndefined(); // to try the path, which is no interrupt of the device's
    expect(take(event)).toBe(1);
    expect(set(NONE_UNMASK, 1)).toBeUndefined();
    expect(take(event)).toBe(0);
    expect(set(EVENTFD_TRIGGER, 1, [event.number, event.number])).toBe('EINVAL');
    expect(set(EVENTFD_TRIGGER, 2, [event.number, event.number])).toBe('EINVAL');
    client.close();
  });

  it.each(['qat', 'vendor-v1'])('%s writes to memory that came as a file, and tells which', async (driver) => {
    const path = await services().serve(`${driver},size=64K,dma=1000`);
    const client = new TestClient(path);
    const memory = createSharedMemory('guest', 16 * PAGE);
    const bytes = mapSharedMemory(memory.number, 16 * PAGE).bytes;
    const map = vfio_user_dma_map.encode({ argsz: 32, flags: 3, addr: 0n, size: BigInt(16 * PAGE) });
    expect(refusalOf(client, VFIO_USER_DMA_MAP, map, [memory.number])).toBeUndefined();
    const log = dmaLogOf(client.port);
    expect(log === undefined).toBe(driver === 'vendor-v1');
    const range = { iova: 0n, length: BigInt(16 * PAGE) };
    log?.start([range], 4096n);
    if (log === undefined)
      expect(refusalOf(client, VFIO_USER_DIRTY_PAGES, Uint8Array.from([8, 0, 0, 0, 1, 0, 0, 0]))).toBeUndefined();
    client.port.write({ index: 7, offset: 0n }, 4, Uint8Array.from([4, 0])); // a bus master
    const written = (): number[] => Array.from({ length: 16 }, (_, n) => n).filter((n) => bytes[n * PAGE] !== 0);
    while (written().length === 0) client.bar(8);
    const bits = new Uint8Array(8);
    if (log !== undefined) log.readAndClear(range, { pageSize: 4096n, bits });
    else bits.set(dirtyPages(client, 16));
    expect(bits.some((byte) => byte !== 0)).toBe(true);
    const unmap = vfio_user_dma_unmap.encode({ argsz: 24, addr: 0n, size: BigInt(16 * PAGE) });
    expect(refusalOf(client, VFIO_USER_DMA_UNMAP, unmap)).toBeUndefined();
    client.close();
    memory.close();
  });

  it('asks the client to write where it has mapped memory without a file', async () => {
    const path = await services().serve('qat,size=64K,dma=1000');
    const asked: number[] = [];
    const client = new TestClient(path, {
      onCommand: (message, link) => {
        asked.push(message.command);
        expect(vfio_user_dma_region_access.decode(message.body).count).toBe(BigInt(message.body.length - 16));
        link.reply(message, message.body.subarray(0, 16));
      },
    });
    const map = vfio_user_dma_map.encode({ argsz: 32, flags: 3, addr: 0x10_0000n, size: BigInt(16 * PAGE) });
    checked(client.server.link.ask({ command: VFIO_USER_DMA_MAP, name: 'DMA_MAP', body: map }), 'DMA_MAP', 'server');
    client.port.write({ index: 7, offset: 0n }, 4, Uint8Array.from([4, 0]));
    while (asked.length === 0) {
      client.bar(8);
      client.server.attend();
    }
    expect(asked[0]).toBe(VFIO_USER_DMA_WRITE);
    client.close();
  });
});

/** DIRTY_PAGES with GET_BITMAP, of so many pages from 0 on. */
function dirtyPages(client: TestClient, pages: number): Uint8Array {
  const body = new Uint8Array(40);
  const view = new DataView(body.buffer);
  view.setUint32(0, 48, true);
  view.setUint32(4, 4, true);
  view.setBigUint64(16, BigInt(pages * PAGE), true);
  view.setBigUint64(24, BigInt(PAGE), true);
  view.setBigUint64(32, 8n, true);
  return client.server.link.request({ command: VFIO_USER_DIRTY_PAGES, name: 'DIRTY_PAGES', body }).subarray(40);
}
