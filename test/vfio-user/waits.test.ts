import { describe, expect, it } from 'vitest';
import {
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DEVICE_GET_IRQ_INFO,
  VFIO_USER_DEVICE_GET_REGION_INFO,
  VFIO_USER_DEVICE_GET_REGION_IO_FDS,
  VFIO_USER_DEVICE_SET_IRQS,
  VFIO_USER_DIRTY_PAGES,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_WRITE,
  VFIO_USER_MIG_DATA_READ,
  vfio_user_dirty_pages,
  vfio_user_mig_data,
} from '../../src/abi/vfio-user.ts';
import { vfio_irq_set } from '../../src/abi/vfio-device.ts';
import { hasErrno } from '../../src/error.ts';
import { DMA_MAGIC, dma_record } from '../../src/sim/dma.ts';
import { connectNow } from '../../src/sys/message-socket.ts';
import { AskedMemory, commands, MainLoopClient, PAGE } from '../support/main-loop-client.ts';
import { useServices } from '../support/vfio-user.ts';

const services = useServices();
const FROM = { at: 0x10_0000, size: 4 * PAGE };
const TO = { at: 0x10_5000, size: 4 * PAGE };
const OTHER = { at: 0x20_0000, size: PAGE };
const place = ({ at, size }: typeof FROM): string => `0x${at.toString(16)}+${size}`;
const source = Uint8Array.from({ length: FROM.size }, (_, n) => n * 13 + (n >> 12));

const [GET, STATE] = [0x1_0000, 2];
const words = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);
const infoOf = (argsz: number, index: number): Uint8Array => words(argsz, 0, index, ...Array(argsz / 4 - 3).fill(0));

async function connected(proxied: boolean, timeout?: number): Promise<MainLoopClient> {
  const spec = `qat,size=64K,dma=5000,dma-at=${place(TO)},dma-from=${place(FROM)}`;
  const server = await services().serve(spec, proxied ? undefined : timeout);
  const fd = connectNow(proxied ? await services().proxy(server, timeout === undefined ? {} : { timeout }) : server);
  if (fd === undefined) throw new Error('nobody listens');
  const client = new MainLoopClient(fd, new AskedMemory(FROM, TO));
  client.memory.at(FROM.at, FROM.size)?.set(source);
  client.greet();
  client.map(FROM, 1);
  client.map(TO, 2);
  client.setBusMaster(true);
  return client;
}

/** Each command, and whether the device goes on with its DMA afterwards. */
const COMMANDS: readonly [name: string, act: (client: MainLoopClient) => void, goesOn: boolean][] = [
  ['GET_INFO', (client) => client.request(VFIO_USER_DEVICE_GET_INFO, words(24, 0, 0, 0, 0, 0)), true],
  ['GET_REGION_INFO', (client) => client.command(VFIO_USER_DEVICE_GET_REGION_INFO, infoOf(32, 7)), true],
  ['GET_REGION_IO_FDS', (client) => client.command(VFIO_USER_DEVICE_GET_REGION_IO_FDS, words(16, 0, 0, 0)), true],
  ['GET_IRQ_INFO', (client) => client.request(VFIO_USER_DEVICE_GET_IRQ_INFO, infoOf(16, 0)), true],
  [
    'SET_IRQS',
    (client) => {
      // of INTx: mask it
      const mask = vfio_irq_set.encode({ argsz: vfio_irq_set.size, flags: 1 | 8, index: 0, start: 0, count: 1 });
      client.command(VFIO_USER_DEVICE_SET_IRQS, mask);
    },
    true,
  ],
  ['a read of BAR0', (client) => client.read(0, 0, 64), true],
  ['a write of BAR0', (client) => client.write(0, 0, words(1)), true],
  ['a read of config space', (client) => client.read(7, 0, 64), true],
  ['a write of config space that lets it go on', (client) => client.write(7, 0x3c, Uint8Array.of(11)), true],
  ['DMA_MAP', (client) => client.map(OTHER, 3), true],
  ['DMA_UNMAP of other memory', (client) => client.unmap(OTHER), true],
  [
    'DIRTY_PAGES',
    (client) => client.command(VFIO_USER_DIRTY_PAGES, vfio_user_dirty_pages.encode({ argsz: 8, flags: 1 })),
    true,
  ],
  ['the state', (client) => client.request(...commands.feature(GET | STATE, words(0, 0))), true],
  [
    'MIG_DATA_READ',
    (client) => client.command(VFIO_USER_MIG_DATA_READ, vfio_user_mig_data.encode({ argsz: 64, size: 16 })),
    true,
  ],
  ['a command that there is not', (client) => client.command(99, new Uint8Array(0)), true],
  ['a write that ends its bus mastering', (client) => client.setBusMaster(false), false],
  ['DEVICE_RESET', (client) => client.request(...commands.reset()), true],
  ['DMA_UNMAP of where it writes', (client) => client.unmap(TO), false],
  ['DMA_UNMAP of what it reads', (client) => client.unmap(FROM), false],
];

/** Has the device copy until all its pages are copies. */
function copyAll(client: MainLoopClient): void {
  const target = client.memory.at(TO.at, TO.size) ?? source;
  target.fill(0);
  const isCopied = (page: number): boolean => dma_record.decode(target, page * PAGE).magic === DMA_MAGIC;
  while (![0, 1, 2, 3].every(isCopied)) {
    client.waitFor(VFIO_USER_DMA_WRITE);
    client.carryOut();
  }
  for (let at = 0; at < TO.size; at += PAGE) {
    const { counter, iova } = dma_record.decode(target, at);
    expect(iova).toBe(TO.at + at);
    const from = (counter % 4) * PAGE;
    const copied = target.subarray(at + dma_record.size, at + PAGE);
    expect(copied).toBeBytes(source.subarray(from + dma_record.size, from + PAGE));
  }
}

describe.each([false, true])('a client that answers nothing while it waits (behind a proxy: %s)', (proxied) => {
  it.each(COMMANDS)('is answered %s while it owes a reply', async (_name, act, goesOn) => {
    const client = await connected(proxied);
    for (const kind of [VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE] as const) {
      client.waitFor(kind);
      act(client);
      expect(client.asked[0]?.command).toBe(kind);
      if (!goesOn) {
        // late: nobody wants the answers
        while (client.carryOut() !== undefined);
        for (let n = 0; n < 5; n += 1) client.read(0, 0, 8);
        expect(client.asked).toEqual([]);
        act(client); // again: nothing is owed
      }
      for (const each of [FROM, TO, OTHER]) client.unmap(each);
      client.map(FROM, 1);
      client.map(TO, 2);
      client.setBusMaster(true);
      copyAll(client);
    }
    client.close();
  });

  it.each(['is silent', 'goes on asking'])('is let go if it never answers, and %s', async (how) => {
    const client = await connected(proxied, 300);
    client.waitFor(VFIO_USER_DMA_READ);
    const { connection } = client.link;
    let why: unknown;
    try {
      for (;;) {
        if (how === 'is silent') connection.waitToReceive(performance.now() + 20_000, 'it');
        else client.read(0, 0, 8);
        client.link.attend();
      }
    } catch (error) {
      why = error;
    }
    expect(hasErrno(why, 'ECONNRESET')).toBe(true);
    expect(client.asked).toHaveLength(1);
    client.close();
  });
});
