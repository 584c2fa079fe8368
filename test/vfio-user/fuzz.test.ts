import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { vfio_irq_info, vfio_irq_set, vfio_region_info } from '../../src/abi/vfio-device.ts';
import * as user from '../../src/abi/vfio-user.ts';
import { vfio_device_feature, vfio_device_feature_mig_state } from '../../src/abi/vfio-v2.ts';
import { hasErrno, ShimError } from '../../src/error.ts';
import { createEventFd, type OwnedFd } from '../../src/sys/fd.ts';
import { sendPieces } from '../../src/sys/message-socket.ts';
import { decodeHeader, encodeHeader, closeFds } from '../../src/vfio-user/wire/message.ts';
import { MAX_BODY } from '../../src/vfio-user/wire/connection.ts';
import { decodeVersion, encodeVersion } from '../../src/vfio-user/wire/version.ts';
import { stateName } from '../../src/device/migratable.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { chance } from '../support/chance.ts';
import { FULL, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';

const services = useServices();

/** How many mutated messages each of the three targets gets. */
const MESSAGES = FULL ? 100_000 : 1000;
/** The most that a process may have grown by, in bytes: far below what the messages had together in the long run. */
const MOST_GROWTH = 256 * 1024 * 1024;
/** Messages of one connection, which is then closed. */
const TOGETHER = 40;

const joined = (...parts: Uint8Array[]): Uint8Array => Buffer.concat(parts);
const feature = (flags: number, data: Uint8Array): Uint8Array =>
  joined(vfio_device_feature.encode({ argsz: 8 + data.length, flags }), data);

/** A good message of each command, by its number; of some there are several. */
const GOOD: readonly (readonly [command: number, body: Uint8Array])[] = [
  [
    user.VFIO_USER_VERSION,
    encodeVersion(2, { max_msg_fds: 8, max_data_xfer_size: 65_536, migration: { pgsize: 4096 } }),
  ],
  [user.VFIO_USER_DMA_MAP, user.vfio_user_dma_map.encode({ argsz: 32, flags: 3, addr: 0x1000n, size: 0x4000n })],
  [user.VFIO_USER_DMA_UNMAP, user.vfio_user_dma_unmap.encode({ argsz: 24, addr: 0x1000n, size: 0x4000n })],
  [
    user.VFIO_USER_DMA_UNMAP,
    joined(
      user.vfio_user_dma_unmap.encode({ argsz: 48, flags: 1, addr: 0x1000n, size: 0x4000n }),
      user.vfio_user_bitmap.encode({ pgsize: 4096n, size: 8n }),
    ),
  ],
  [user.VFIO_USER_DEVICE_GET_INFO, user.vfio_user_device_info.encode({ argsz: 16 })],
  [user.VFIO_USER_DEVICE_GET_REGION_INFO, vfio_region_info.encode({ argsz: 256, index: 9 })],
  [user.VFIO_USER_DEVICE_GET_REGION_IO_FDS, user.vfio_user_region_io_fds.encode({ argsz: 16 })],
  [user.VFIO_USER_DEVICE_GET_IRQ_INFO, vfio_irq_info.encode({ argsz: 16 })],
  [user.VFIO_USER_DEVICE_SET_IRQS, vfio_irq_set.encode({ argsz: 20, flags: 0x24, count: 1 })],
  [user.VFIO_USER_REGION_READ, user.vfio_user_region_access.encode({ offset: 8n, region: 9, count: 8 })],
  [user.VFIO_USER_REGION_READ, user.vfio_user_region_access.encode({ region: 0, count: 4096 })],
  [
    user.VFIO_USER_REGION_WRITE,
    joined(user.vfio_user_region_access.encode({ region: 9, count: 4 }), Uint8Array.of(3, 0, 0, 0)),
  ],
  [
    user.VFIO_USER_REGION_WRITE_MULTI,
    joined(
      user.vfio_user_write_multi.encode({ wr_cnt: 2n }),
      user.vfio_user_write_one.encode({ region: 0, count: 4 }),
      user.vfio_user_write_one.encode({ region: 7, offset: 4n, count: 2, data: 4n }),
    ),
  ],
  [user.VFIO_USER_DEVICE_RESET, new Uint8Array(0)],
  [user.VFIO_USER_DIRTY_PAGES, user.vfio_user_dirty_pages.encode({ argsz: 8, flags: 1 })],
  [
    user.VFIO_USER_DIRTY_PAGES,
    joined(
      user.vfio_user_dirty_pages.encode({ argsz: 48, flags: 4 }),
      user.vfio_user_bitmap_range.encode({ iova: 0x1000n, size: 0x4000n, bitmap_pgsize: 4096n, bitmap_size: 8n }),
    ),
  ],
  [user.VFIO_USER_DEVICE_FEATURE, feature(0x1_0001, new Uint8Array(8))],
  [
    user.VFIO_USER_DEVICE_FEATURE,
    feature(0x2_0002, vfio_device_feature_mig_state.encode({ device_state: 2, data_fd: -1 })),
  ],
  [
    user.VFIO_USER_DEVICE_FEATURE,
    feature(0x2_0002, vfio_device_feature_mig_state.encode({ device_state: 4, data_fd: -1 })),
  ],
  [user.VFIO_USER_DEVICE_FEATURE, feature(0x2_0006, user.vfio_user_dma_logging_control.encode({ page_size: 4096n }))],
  [
    user.VFIO_USER_DEVICE_FEATURE,
    feature(0x1_0008, user.vfio_user_dma_logging_report.encode({ iova: 0n, length: 0x8000n, page_size: 4096n })),
  ],
  [user.VFIO_USER_MIG_DATA_READ, user.vfio_user_mig_data.encode({ argsz: 4104, size: 4096 })],
  [user.VFIO_USER_MIG_DATA_WRITE, joined(user.vfio_user_mig_data.encode({ argsz: 16, size: 8 }), new Uint8Array(8))],
];

/** Numbers that lie at the edge of something. */
const EDGES = [0, 1, 7, 8, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/** Another message than a good one: with bytes changed, left out, doubled, or a number at the edge of something. */
function mutated(draw: (below: number) => number): { readonly head: Uint8Array; readonly body: Uint8Array } {
  const [command, good] = GOOD[draw(GOOD.length)] ?? [0, new Uint8Array(0)];
  let body = good.slice();
  for (let n = draw(4); n > 0; n -= 1) {
    const at = draw(body.length + 1);
    switch (draw(5)) {
      case 0:
        if (at < body.length) body[at] = draw(256);
        break;
      case 1:
        body = body.subarray(0, at);
        break;
      case 2:
        body = Buffer.concat([body, body.subarray(at)]);
        break;
      case 3:
        if (at + 4 <= body.length) {
          new DataView(body.buffer, body.byteOffset).setUint32(at & ~3, EDGES[draw(EDGES.length)] ?? 0, true);
        }
        break;
      default:
        body = Buffer.concat([body.subarray(0, at), Uint8Array.of(draw(256)), body.subarray(at)]);
    }
  }
  const head = encodeHeader(
    {
      id: draw(0x1_0000),
      command: draw(20) === 0 ? draw(40) : command,
      isReply: false,
      noReply: draw(16) === 0,
      errno: undefined,
    },
    body.length,
  );
  if (draw(60) === 0) head[draw(16)] = draw(256); // then nobody knows where the next one begins
  return { head, body };
}

const descriptors = (): number => readdirSync('/proc/self/fd').length;
const resident = (): number => process.memoryUsage.rss();

describe('what is no message of this protocol', () => {
  it('is refused by the codec as such, or is read as one', { timeout: 4 * PROPERTY_TIMEOUT }, () => {
    const draw = chance(1);
    let refused = 0;
    for (let n = 0; n < MESSAGES; n += 1) {
      const { head, body } = mutated(draw);
      try {
        const header = decodeHeader(head, MAX_BODY);
        expect(header.length).toBeLessThanOrEqual(MAX_BODY);
        decodeVersion(body);
      } catch (error) {
        if (!(error instanceof ShimError)) throw error;
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(MESSAGES / 10);
    expect(refused).toBeLessThan(MESSAGES);
  });

  it.each([
    ['serve', 'qat', undefined],
    ['serve', 'vendor-v1', undefined],
    ['proxy', 'qat', 'v1'],
    ['proxy', 'vendor-v1', 'v2'],
  ] as const)(
    'is answered by %s of %s (%s) with a refusal or the end of the connection, and the next client is served',
    { timeout: 4 * PROPERTY_TIMEOUT },
    async (what, driver, present) => {
      const server = await services().serve(`${driver},size=64K`);
      const path = what === 'serve' ? server : await services().proxy(server, { present: present ?? 'auto' });
      using event = createEventFd();
      new TestClient(path, { timeout: 60_000 }).close();
      new TestClient(path, { timeout: 60_000 }).close(); // by now the first has been let go
      const before = { descriptors: descriptors(), resident: resident() };
      const draw = chance(driver.length + what.length);
      for (let sent = 0; sent < MESSAGES; sent += TOGETHER) sendMany(path, draw, event);
      const last = new TestClient(path, { timeout: 60_000 });
      expect(stateName(last.device)).toBe('RUNNING');
      last.close();
      new TestClient(path, { timeout: 60_000 }).close();
      // the last one's connection is closed by a thread that may not have come to it yet
      const isGiven = (): true | undefined => (descriptors() <= before.descriptors ? true : undefined);
      await poll(isGiven, 20_000, () => `${descriptors()} descriptors to become ${before.descriptors}`);
      expect(resident() - before.resident).toBeLessThan(MOST_GROWTH);
    },
  );
});

describe('a server whose answers are none', () => {
  /** Clients that each try to save the device, and to load another's state. */
  const CLIENTS = FULL ? 2000 : 40;

  it.each([
    ['qat', 'v1'],
    ['vendor-v1', 'v2'],
    ['qat', 'auto'],
    ['vendor-v1', 'auto'],
  ] as const)(
    'of %s (%s) costs its client an error or the connection, and nobody else anything',
    { timeout: 4 * PROPERTY_TIMEOUT },
    async (driver, present) => {
      const server = await services().serve(`${driver},size=64K`);
      const { path, alter } = await services().relay(server);
      const proxy = await services().proxy(path, { present, timeout: 2000 });
      const first = new TestClient(proxy);
      const state = first.save();
      first.close();
      new TestClient(proxy).close(); // by now the first has been let go
      const before = { descriptors: descriptors(), resident: resident() };
      const draw = chance(driver.length * present.length);
      const ends = { well: 0, badly: 0 };
      for (let n = 0; n < CLIENTS; n += 1) {
        alter({ seed: draw(10_000), bytes: true });
        let client: TestClient | undefined;
        try {
          client = new TestClient(proxy, { timeout: 60_000 });
          if (n % 2 === 0) client.save();
          else client.restore(state);
          ends.well += 1;
        } catch (error) {
          if (!(error instanceof ShimError || isOfDevice(error))) throw error;
          ends.badly += 1;
        }
        client?.close();
      }
      expect(Math.min(ends.well, ends.badly)).toBeGreaterThan(0);
      alter({});
      const last = new TestClient(proxy, { timeout: 60_000 });
      expect(stateName(last.device)).toBe('RUNNING');
      expect(last.save().length).toBeGreaterThan(0);
      last.close();
      const isGiven = (): true | undefined => (descriptors() <= before.descriptors ? true : undefined);
      await poll(isGiven, 20_000, () => `${descriptors()} descriptors to become ${before.descriptors}`);
      expect(resident() - before.resident).toBeLessThan(MOST_GROWTH);
    },
  );
});

/** What TestClient says if the device is none that migrates any more. */
const isOfDevice = (error: unknown): boolean =>
  error instanceof Error && /^the device (does not migrate|speaks)/.test(error.message);

/** Sends some over one connection, takes what is answered meanwhile, and goes in the midst of it. */
function sendMany(path: string, draw: (below: number) => number, event: OwnedFd): void {
  const client = new TestClient(path, { timeout: 60_000 });
  const { connection } = client.server.link;
  try {
    for (let n = 0; n < TOGETHER; n += 1) {
      const { head, body } = mutated(draw);
      const fds = Array.from({ length: draw(8) === 0 ? draw(10) : 0 }, () => event.number);
      const whole = Buffer.concat([head, body]);
      const cut = draw(40) === 0 ? 1 + draw(whole.length) : whole.length;
      if (sendPieces(connection.fd, [whole.subarray(0, cut)], fds) < 0) break; // it is full, or at its end
      for (let reply = connection.receive(); reply !== undefined; reply = connection.receive()) closeFds(reply);
      if (cut < whole.length) break;
    }
  } catch (error) {
    if (!hasErrno(error, 'ECONNRESET')) throw error;
  }
  client.close();
}
