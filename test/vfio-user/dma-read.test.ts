import { describe, expect, it } from 'vitest';
import {
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_WRITE,
  vfio_user_dma_map,
  vfio_user_dma_region_access,
} from '../../src/abi/vfio-user.ts';
import { stateName } from '../../src/device/migratable.ts';
import { hasErrno } from '../../src/error.ts';
import { DMA_MAGIC, dma_record } from '../../src/sim/dma.ts';
import { createSharedMemory, mapSharedMemory } from '../../src/sys/memory.ts';
import { checked, type Link } from '../../src/vfio-user/wire/link.ts';
import type { Message } from '../../src/vfio-user/wire/message.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { patient } from '../support/patience.ts';
import { TestClient, useServices, type Services } from '../support/vfio-user.ts';

const services = useServices();
const PAGE = 4096;
/** The guest's memory: what is read, a page that is not mapped, and what is written to. */
const [FROM, TO] = [
  { at: 0x10_0000, size: 4 * PAGE },
  { at: 0x10_5000, size: 4 * PAGE },
] as const;
const HEAD = vfio_user_dma_region_access.size;
const source = Uint8Array.from({ length: FROM.size }, (_, n) => n * 13 + (n >> 12));

const place = ({ at, size }: typeof FROM | typeof TO): string => `0x${at.toString(16)}+${size}`;
const copying = (driver: string): string => `${driver},size=64K,dma=5000,dma-at=${place(TO)},dma-from=${place(FROM)}`;

function map(client: TestClient, { at, size }: typeof FROM | typeof TO, flags: number, fds: readonly number[]): void {
  const body = vfio_user_dma_map.encode({ argsz: 32, flags, addr: BigInt(at), size: BigInt(size) });
  checked(client.server.link.ask({ command: VFIO_USER_DMA_MAP, name: 'DMA_MAP', body, fds }), 'DMA_MAP', 'the server');
}

const setBusMaster = (client: TestClient, on: boolean): void => {
  client.port.write({ index: 7, offset: 0n }, 4, Uint8Array.of(on ? 4 : 0, 0));
};

const isWritten = (target: Uint8Array): boolean =>
  [0, 1, 2, 3].every((page) => dma_record.decode(target, page * PAGE).magic === DMA_MAGIC);

/** Each page has a record, and behind it what the page in its turn has there. `torn`: where one is of which the device was kept from writing all. */
function expectCopies(target: Uint8Array, torn?: number): void {
  for (let at = 0; at < TO.size; at += PAGE) {
    if (at === torn) continue;
    const { magic, counter, iova } = dma_record.decode(target, at);
    expect([magic, iova]).toEqual([DMA_MAGIC, TO.at + at]);
    const from = (counter % 4) * PAGE;
    expect(target.subarray(at + dma_record.size, at + PAGE)).toBeBytes(
      source.subarray(from + dma_record.size, from + PAGE),
    );
  }
}

/** A client whose memory has no file: it is asked for it. `alter`: another answer to DMA_READ, or none. */
class AskedClient {
  readonly memory = new Map<number, Uint8Array>([
    [FROM.at, source.slice()],
    [TO.at, new Uint8Array(TO.size)],
  ]);
  readonly reads: number[] = [];
  writes = 0;
  /** Where a page is that was written in part. */
  torn: number | undefined;
  alter: ((body: Uint8Array) => Uint8Array | 'EFAULT' | undefined) | undefined;

  readonly onCommand = (message: Message, link: Link): void => {
    const { addr, count } = vfio_user_dma_region_access.decode(message.body);
    const [begin, bytes] = [...this.memory].find(([at, { length }]) => addr >= at && addr < at + length) ?? [0, source];
    const at = Number(addr) - begin;
    if (message.command === VFIO_USER_DMA_WRITE) {
      this.writes += 1;
      expect(message.body).toHaveLength(HEAD + Number(count));
      bytes.set(message.body.subarray(HEAD), at);
      const end = at + Number(count);
      this.torn = end % PAGE === 0 ? undefined : end - (end % PAGE);
      link.reply(message, message.body.subarray(0, HEAD));
      return;
    }
    expect([message.command, message.body.length]).toEqual([VFIO_USER_DMA_READ, HEAD]);
    this.reads.push(Number(count));
    const good = Buffer.concat([message.body, bytes.subarray(at, at + Number(count))]);
    const reply = this.alter === undefined ? good : this.alter(good);
    if (reply === 'EFAULT') link.refuse(message, reply);
    else if (reply !== undefined) link.reply(message, reply);
  };

  get target(): Uint8Array {
    return this.memory.get(TO.at) ?? source;
  }
}

async function connected(
  of: Services,
  asked: AskedClient,
  limit = 1024 * 1024,
  { proxied = false, timeout = 20_000 } = {},
): Promise<{ readonly client: TestClient; readonly path: string }> {
  // who stands before the client has so much patience with it
  const server = await of.serve(copying('qat'), proxied ? 20_000 : timeout);
  const path = proxied ? await of.proxy(server, { timeout }) : server;
  const capabilities = { max_msg_fds: 8, max_data_xfer_size: limit, migration: { pgsize: PAGE } };
  const client = new TestClient(path, { capabilities, onCommand: asked.onCommand });
  map(client, FROM, 1, []);
  map(client, TO, 2, []);
  setBusMaster(client, true);
  return { client, path };
}

/** Has the client attend to what it is asked until something is so. */
function attendUntil(client: TestClient, isSo: () => boolean): void {
  const end = performance.now() + patient(20_000);
  while (!isSo()) {
    if (performance.now() > end) throw new Error('the device does not come to it');
    client.bar(8);
    client.server.attend();
  }
}

describe('a device that reads memory of its client', () => {
  it.each(['qat', 'vendor-v1'])('%s reads it from the file that came with it', async (driver) => {
    const client = new TestClient(await services().serve(copying(driver)));
    using from = createSharedMemory('from', FROM.size);
    using to = createSharedMemory('to', TO.size);
    mapSharedMemory(from.number, FROM.size).bytes.set(source);
    const target = mapSharedMemory(to.number, TO.size).bytes;
    map(client, FROM, 1, [from.number]);
    map(client, TO, 2, [to.number]);
    setBusMaster(client, true);
    await poll(() => (isWritten(target) ? true : undefined), patient(20_000), 'the device to copy');
    setBusMaster(client, false);
    expectCopies(target);
    expect(mapSharedMemory(from.number, FROM.size).bytes).toBeBytes(source);
    client.close();
  });

  it.each([
    [1024 * 1024, [PAGE], false],
    [PAGE, [PAGE], false],
    [1024, [1024], false],
    [3000, [3000, 1096], false],
    [1024, [1024], true],
  ])('asks for it by DMA_READ, at most %i bytes at once: %j (behind a proxy: %s)', async (limit, sizes, proxied) => {
    const asked = new AskedClient();
    const { client } = await connected(services(), asked, limit, { proxied });
    attendUntil(client, () => isWritten(asked.target));
    setBusMaster(client, false);
    expectCopies(asked.target, asked.torn);
    expect(asked.memory.get(FROM.at)).toBeBytes(source);
    expect([...new Set(asked.reads)]).toEqual(sizes);
    client.close();
  });

  it.each<[name: string, alter: (good: Uint8Array) => Uint8Array | 'EFAULT']>([
    ['has less data than it says', (good) => good.subarray(0, -1)],
    ['has less data', (good) => altered(good.subarray(0, -1), PAGE - 1)],
    ['has more data than it says', (good) => Buffer.concat([good, Uint8Array.of(1)])],
    ['has more data', (good) => altered(Buffer.concat([good, Uint8Array.of(1)]), PAGE + 1)],
    ['says that it has 2^64 - 1 bytes', (good) => altered(good, 2n ** 64n - 1n)],
    ['has nothing', () => new Uint8Array(0)],
    ['is an error', () => 'EFAULT'],
  ])('writes nothing if the answer %s, and goes on once it is one', async (_name, alter) => {
    const asked = new AskedClient();
    asked.alter = alter;
    const { client } = await connected(services(), asked);
    attendUntil(client, () => asked.reads.length > 20);
    expect(asked.writes).toBe(0);
    expect(stateName(client.device)).toBe('RUNNING');
    asked.alter = undefined;
    attendUntil(client, () => isWritten(asked.target));
    setBusMaster(client, false);
    expectCopies(asked.target);
    client.close();
  });

  it.each([
    [false, 'goes on asking'],
    [false, 'is silent'],
    [true, 'goes on asking'],
    [true, 'is silent'],
  ])('lets a client go that never answers, and serves the next (behind a proxy: %s; it %s)', async (proxied, how) => {
    const asked = new AskedClient();
    asked.alter = () => undefined;
    const { client, path } = await connected(services(), asked, PAGE, { proxied, timeout: 300 });
    const lost = (): boolean => {
      try {
        const { connection } = client.server.link;
        if (how === 'goes on asking' || asked.reads.length === 0) client.bar(8);
        else connection.waitToReceive(performance.now() + patient(20_000), 'lets it go');
        client.server.attend();
        return false;
      } catch (error) {
        if (hasErrno(error, 'ECONNRESET')) return true;
        throw error;
      }
    };
    attendUntilLost(lost);
    expect([asked.reads.length, asked.writes]).toEqual([1, 0]);
    client.close();
    const next = new TestClient(path);
    expect(stateName(next.device)).toBe('RUNNING');
    next.close();
  });
});

function attendUntilLost(isLost: () => boolean): void {
  const end = performance.now() + patient(20_000);
  while (!isLost()) if (performance.now() > end) throw new Error('the client is not let go');
}

/** The same answer, which says that it has so many bytes. */
function altered(reply: Uint8Array, count: number | bigint): Uint8Array {
  const bytes = reply.slice();
  vfio_user_dma_region_access.view(bytes).count = BigInt(count);
  return bytes;
}
