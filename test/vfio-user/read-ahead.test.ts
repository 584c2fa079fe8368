import { describe, expect, it } from 'vitest';
import {
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_WRITE,
  VFIO_USER_REGION_READ,
  vfio_user_device_info,
  vfio_user_dma_region_access,
  vfio_user_region_access,
} from '../../src/abi/vfio-user.ts';
import { ShimError } from '../../src/error.ts';
import { V1RegisterAccess } from '../../src/v1/registers.ts';
import { V1 } from '../../src/v1/states.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import type { Asked } from '../../src/vfio-user/wire/link.ts';
import type { Message } from '../../src/vfio-user/wire/message.ts';
import { DmaPieces } from '../../src/vfio-user/proxy/dma-pieces.ts';
import { SteadyV1, SteadyV2 } from '../../src/vfio-user/proxy/steady-state.ts';
import { v2Sim } from '../support/sims.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';

const services = useServices();
const SIZE = 65_536;

const barRead = (offset: number, count: number): Asked => ({
  command: VFIO_USER_REGION_READ,
  name: 'VFIO_USER_REGION_READ',
  body: vfio_user_region_access.encode({ offset: BigInt(offset), region: 0, count }),
});
const info: Asked = {
  command: VFIO_USER_DEVICE_GET_INFO,
  name: 'VFIO_USER_DEVICE_GET_INFO',
  body: vfio_user_device_info.encode({ argsz: 16 }),
};

describe('a request that was begun', () => {
  it('is answered later, whatever is asked and comes meanwhile', async () => {
    const client = new TestClient(await services().serve('qat,size=64K,seed=3'));
    const bar = client.bar(SIZE);
    const { link } = client.server;
    link.begin(barRead(0, SIZE));
    while (!link.attend()); // the reply has come, in pieces
    expect(vfio_user_device_info.decode(link.request(info)).num_regions).toBe(9);
    link.begin(barRead(4096, 8)); // what was begun before is let go by nobody: it is taken first
    expect(() => link.begin(barRead(0, 8))).not.toThrow();
    expect(link.finish().body.subarray(16)).toBeBytes(bar.subarray(0, 8));
    client.close();
  });

  it('is dropped if nobody wants it, and what comes after is answered by its own reply', async () => {
    const client = new TestClient(await services().serve('qat,size=64K,seed=3'));
    const bar = client.bar(SIZE);
    const { link } = client.server;
    for (const hasCome of [true, false]) {
      link.begin(barRead(0, SIZE));
      if (hasCome) while (!link.attend());
      link.abandon();
      expect(link.request(barRead(8, 16)).subarray(16)).toBeBytes(bar.subarray(8, 24));
      expect(() => link.finish()).toThrow('nothing was begun');
    }
    client.close();
  });
});

describe('a read of a region that is begun', () => {
  it('is answered with the same read, whatever is read before, and not after a write', async () => {
    const client = new TestClient(await services().serve('qat,size=64K,seed=3'));
    const bar = client.bar(SIZE);
    const { port } = client;
    const region = { index: 0, offset: 0n };
    const read = (at: number, count: number): Uint8Array => {
      const into = new Uint8Array(count);
      expect(port.read(region, at, into)).toBe(count);
      return into;
    };
    for (const count of [8, 20_000]) {
      port.prepare({ region: 0, at: 64, count });
      expect(read(128, count)).toBeBytes(bar.subarray(128, 128 + count));
      expect(read(64, count)).toBeBytes(bar.subarray(64, 64 + count));
      expect(read(64, count)).toBeBytes(bar.subarray(64, 64 + count));
    }
    port.prepare({ region: 0, at: 64, count: 8 });
    const written = bar.slice(64, 72).map((byte) => byte ^ 0xff);
    port.write(region, 64, written);
    expect(read(64, 8)).toBeBytes(written);
    port.prepare({ region: 0, at: 64, count: 8 });
    port.prepare({ region: 0, at: 65, count: 8 });
    expect(read(65, 8)).toBeBytes(Buffer.concat([written.subarray(1), bar.subarray(72, 73)]));
    client.close();
  });
});

describe('migration data that are read ahead', () => {
  it('are none of the next session', async () => {
    const client = new TestClient(await services().serve('qat,size=64K,seed=3'), {
      capabilities: { max_data_xfer_size: 4096 },
    });
    const { device } = client;
    if (device.protocol !== 'v2') throw new Error('qat speaks v2');
    const readAll = (): Uint8Array => {
      const session = device.device.setState(V2.STOP_COPY);
      const all: Uint8Array[] = [];
      for (;;) {
        const into = new Uint8Array(1000);
        const length = session?.read(into) ?? 0;
        if (length === 0) return Buffer.concat(all);
        all.push(into.subarray(0, length));
      }
    };
    device.device.setState(V2.STOP);
    const whole = readAll();
    for (const pieces of [1, 5, 9]) {
      device.device.setState(V2.STOP);
      const session = device.device.setState(V2.STOP_COPY);
      for (let n = 0; n < pieces; n += 1) expect(session?.read(new Uint8Array(1000))).toBeGreaterThan(0);
      device.device.setState(V2.STOP);
      expect(readAll()).toBeBytes(whole);
    }
    client.close();
  });
});

describe('the state of a device behind the proxy', () => {
  it('of v2 is asked for once while data move, and again after anything else or a failure', () => {
    const { device } = v2Sim('qat,size=8K');
    let asked = 0;
    const counted: V2Device = {
      migrationFlags: device.migrationFlags,
      getState: () => ((asked += 1), device.getState()),
      setState: (target) => device.setState(target),
      openSession: () => device.openSession(),
      stopCopyLength: () => device.stopCopyLength(),
      reset: () => device.reset(),
    };
    const steady = new SteadyV2(counted);
    const states = (): number => {
      asked = 0;
      expect(new Set([steady.getState(), steady.getState()]).size).toBe(1);
      return asked;
    };
    expect(states()).toBe(2); // RUNNING
    const session = steady.setState(V2.STOP_COPY);
    expect(states()).toBe(1);
    expect(states()).toBe(0);
    expect(session?.read(new Uint8Array(100))).toBe(100);
    expect(states()).toBe(0);
    steady.forget();
    expect(states()).toBe(1);
    expect(() => session?.write(new Uint8Array(1))).toThrow(ShimError);
    expect(states()).toBe(1);
    steady.setState(V2.STOP);
    expect(states()).toBe(2);
    steady.setState(V2.RESUMING);
    expect(states()).toBe(1);
    steady.reset();
    expect(steady.getState()).toBe(V2.RUNNING);
  });

  it('of v1 is read once while data move, and again after it is written, a failure or a reset', () => {
    const region = new Uint8Array(256);
    let reads = 0;
    let fails = false;
    const steady = new SteadyV1({
      regionSize: 256,
      dataSection: { offset: 128, size: 128 },
      mapped: undefined,
      read(offset, into) {
        if (fails) throw new ShimError('ERR_DEVICE', 'it fails', { errno: 'EIO' });
        if (offset === 0) reads += 1;
        into.set(region.subarray(offset, offset + into.length));
      },
      write: (offset, from) => region.set(from, offset),
      reset: () => region.fill(0, 0, 4),
    });
    const registers = new V1RegisterAccess(steady);
    const count = (): number => {
      reads = 0;
      registers.rawDeviceState();
      registers.rawDeviceState();
      return reads;
    };
    registers.writeDeviceState(0, V1.RUNNING);
    expect(count()).toBe(2);
    registers.writeDeviceState(V1.RUNNING, V1.STOP_COPY);
    expect(count()).toBe(1);
    steady.read(128, new Uint8Array(16));
    expect(count()).toBe(0);
    fails = true;
    expect(() => steady.read(128, new Uint8Array(16))).toThrow('it fails');
    fails = false;
    expect(count()).toBe(1);
    registers.writeDeviceState(V1.STOP_COPY, V1.STOP);
    expect(registers.rawDeviceState()).toBe(V1.STOP);
    registers.writeDeviceState(V1.STOP, V1.RESUMING);
    expect(count()).toBe(1);
    steady.reset();
    expect(registers.rawDeviceState()).toBe(0);
  });
});

describe("a server's DMA that is more than its client takes at once", () => {
  const memory = Uint8Array.from({ length: 300 }, (_, n) => n & 0xff);
  const message = (command: number, addr: bigint, data: Uint8Array, count = data.length): Message => ({
    id: 1,
    command,
    isReply: false,
    noReply: false,
    errno: undefined,
    body: Buffer.concat([vfio_user_dma_region_access.encode({ addr, count: BigInt(count) }), data]),
    fds: [],
  });

  /** A client with memory from 0x1000 on, which fails for the piece of that number, or answers it short. */
  function clientOf(bytes: Uint8Array, failsAt = -1, isShort = false) {
    const counts: number[] = [];
    const ask = ({ command, body }: Asked): Message => {
      const { addr, count } = vfio_user_dma_region_access.decode(body);
      const at = Number(addr) - 0x1000;
      const isBad = counts.push(Number(count)) - 1 === failsAt;
      if (command === VFIO_USER_DMA_WRITE) bytes.set(body.subarray(16), at);
      const data = command === VFIO_USER_DMA_READ ? bytes.subarray(at, at + Number(count)) : new Uint8Array(0);
      const reply = Buffer.concat([body.subarray(0, 16), isBad && isShort ? data.subarray(1) : data]);
      return {
        ...message(command, addr, data),
        isReply: true,
        errno: isBad && !isShort ? 'EFAULT' : undefined,
        body: reply,
      };
    };
    return { client: { ask }, counts };
  }

  /** Has a client carry out a command, in as many pieces as it takes. */
  function askInPieces(client: ReturnType<typeof clientOf>['client'], limit: number, command: Message): Message {
    const pieces = new DmaPieces(limit, command);
    for (let body = pieces.next(); body !== undefined; body = pieces.next()) {
      const whole = pieces.take(client.ask({ command: command.command, name: 'it', body }));
      if (whole !== undefined) return whole;
    }
    throw new Error('all was asked, and has no reply');
  }

  it.each([
    [100, 32, [32, 32, 32, 4]],
    [96, 32, [32, 32, 32]],
    [32, 32, [32]],
    [100, 0, [100]],
  ])('of %i bytes, with %i at once, is asked for in %j', (length, limit, pieces) => {
    const { client, counts } = clientOf(memory.slice());
    const reply = askInPieces(client, limit, message(VFIO_USER_DMA_READ, 0x1010n, new Uint8Array(0), length));
    expect(counts).toEqual(pieces);
    expect(vfio_user_dma_region_access.decode(reply.body)).toEqual({ addr: 0x1010n, count: BigInt(length) });
    expect(reply.body.subarray(16)).toBeBytes(memory.subarray(16, 16 + length));
    const written = new Uint8Array(300);
    const writer = clientOf(written);
    const data = memory.subarray(50, 50 + length);
    const answer = askInPieces(writer.client, limit, message(VFIO_USER_DMA_WRITE, 0x1008n, data));
    expect(writer.counts).toEqual(pieces);
    expect(answer.body).toHaveLength(16);
    expect(written.subarray(8, 8 + length)).toBeBytes(data);
  });

  it('fails if a piece does, and asks no more', () => {
    const refusing = clientOf(memory.slice(), 1);
    const read = message(VFIO_USER_DMA_READ, 0x1000n, new Uint8Array(0), 100);
    expect(askInPieces(refusing.client, 32, read).errno).toBe('EFAULT');
    expect(refusing.counts).toEqual([32, 32]);
    expect(askInPieces(clientOf(memory.slice(), 2, true).client, 32, read).errno).toBe('EIO');
  });
});
