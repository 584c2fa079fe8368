import { readdirSync, readlinkSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { vfio_region_info } from '../../src/abi/vfio-device.ts';
import * as user from '../../src/abi/vfio-user.ts';
import { stateName } from '../../src/device/migratable.ts';
import { errnoNameOf } from '../../src/error.ts';
import { closeFds } from '../../src/vfio-user/wire/message.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { chance } from '../support/chance.ts';
import type { Alteration, Kind } from '../support/altering-relay.ts';
import { patient } from '../support/patience.ts';
import { FULL, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';

const services = useServices();
const PATIENCE = patient(20_000);

/** The descriptors of this process, in which the proxy is a thread: the server that does not keep to the protocol is another one. */
const descriptors = (): number => readdirSync('/proc/self/fd').length;

async function until(count: number): Promise<void> {
  await poll(
    () => (descriptors() <= count ? true : undefined),
    PATIENCE,
    () => {
      const links = readdirSync('/proc/self/fd').map((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`);
        } catch {
          return '';
        }
      });
      return `${descriptors()} descriptors to become ${count}: ${links.join()}`;
    },
  );
}

const bar0: Uint8Array = vfio_region_info.encode({ argsz: 256, index: 0 });
const REGION_INFO = user.VFIO_USER_DEVICE_GET_REGION_INFO;

/** A good command, and what its reply is to the client if its descriptors are altered: the errno of a refusal, or how many come. */
type Outcome = number | 'EPROTO' | 'EIO';
interface Row {
  readonly name: string;
  readonly command: number;
  readonly body: Uint8Array;
  readonly tries: readonly (readonly [alteration: Alteration, outcome: Outcome])[];
}

const ROWS: readonly Row[] = [
  {
    name: "GET_REGION_INFO's",
    command: REGION_INFO,
    body: bar0,
    tries: [
      [{}, 1],
      [{ drops: true }, 0],
      [{ adds: ['file'] }, 'EPROTO'],
      [{ drops: true, adds: ['event'] }, 'EPROTO'],
      [{ drops: true, adds: ['stream'] }, 'EPROTO'],
      [{ drops: true, adds: ['directory'] }, 'EPROTO'],
      [{ fails: true }, 'EIO'],
      [{ fails: true, adds: ['stream', 'event'] }, 'EIO'],
    ],
  },
  {
    name: "REGION_IO_FDS's",
    command: user.VFIO_USER_DEVICE_GET_REGION_IO_FDS,
    body: user.vfio_user_region_io_fds.encode({ argsz: 16 }),
    tries: [
      [{ adds: ['event', 'event'] }, 2],
      [{ adds: Array.from({ length: 9 }, (): Kind => 'event') }, 'EPROTO'],
      [{ fails: true, adds: ['event'] }, 'EIO'],
    ],
  },
  {
    name: "GET_INFO's",
    command: user.VFIO_USER_DEVICE_GET_INFO,
    body: user.vfio_user_device_info.encode({ argsz: 16 }),
    tries: [
      [{ adds: ['file'] }, 0],
      [{ adds: ['event', 'directory', 'datagram'] }, 0],
      [{ fails: true, adds: ['file'] }, 'EIO'],
    ],
  },
  {
    name: "REGION_READ's",
    command: user.VFIO_USER_REGION_READ,
    body: user.vfio_user_region_access.encode({ count: 8 }),
    tries: [[{ adds: ['file', 'stream'] }, 0]],
  },
  {
    name: "REGION_WRITE's",
    command: user.VFIO_USER_REGION_WRITE,
    body: Buffer.concat([user.vfio_user_region_access.encode({ count: 4 }), new Uint8Array(4)]),
    tries: [[{ adds: ['file', 'stream'] }, 0]],
  },
  {
    name: "DMA_MAP's",
    command: user.VFIO_USER_DMA_MAP,
    body: user.vfio_user_dma_map.encode({ argsz: 32, flags: 3, addr: 0x1000n, size: 0x4000n }),
    tries: [[{ adds: ['file'] }, 0]],
  },
  {
    name: "DEVICE_RESET's",
    command: user.VFIO_USER_DEVICE_RESET,
    body: new Uint8Array(0),
    tries: [
      [{ adds: ['event'] }, 0],
      [{ fails: true, adds: ['event'] }, 'EIO'],
    ],
  },
];

describe("the descriptors of a server's reply", () => {
  const cases = ROWS.flatMap(({ name, command, body, tries }) =>
    tries.map(([alteration, outcome]) => ({ name, command, body, alteration, outcome })),
  );

  it.each(['auto', 'v1'] as const)(
    'are what the proxy (%s) hands on, a refusal, or closed, and none is left open',
    { timeout: PROPERTY_TIMEOUT },
    async (present) => {
      const server = await services().serve('qat,size=64K');
      const { path, alter } = await services().relay(server);
      const proxy = await services().proxy(path, { present });
      new TestClient(proxy).close();
      new TestClient(proxy).close(); // by now the first has been let go
      const before = descriptors();
      for (const { name, command, body, alteration, outcome } of cases) {
        alter({});
        const client = new TestClient(proxy);
        alter({ command, ...alteration });
        const reply = client.server.link.ask({ command, name, body });
        const found = reply.errno ?? reply.fds.length;
        closeFds(reply);
        alter({});
        expect([name, alteration, found]).toEqual([name, alteration, outcome]);
        expect(stateName(client.device)).toBe('RUNNING');
        client.close();
        await until(before);
      }
    },
  );

  it.each<[alteration: Alteration, outcome: string]>([
    [{ drops: true }, 'a region without its file'],
    [{ drops: true, adds: ['event'] }, 'EPROTO'],
    [{ adds: ['file'] }, 'EPROTO'],
    [{ fails: true, adds: ['file'] }, 'EIO'],
  ])('with %j are that to a client of ours: %s', async (alteration, outcome) => {
    const server = await services().serve('vendor-v1,size=64K');
    const { path, alter } = await services().relay(server);
    new TestClient(path).close();
    const before = descriptors();
    const client = new TestClient(path);
    const device = client.bar(64);
    alter({ command: REGION_INFO, ...alteration });
    let found: string;
    try {
      client.port.getRegionInfo(bar0.slice());
      expect(client.bar(64)).toBeBytes(device); // by messages
      found = 'a region without its file';
    } catch (error) {
      found = errnoNameOf(error);
    }
    expect(found).toBe(outcome);
    client.close();
    await until(before);
  });
});

describe('the twin socket of a server', () => {
  const NOTHING_SENT = 'has a twin socket, and has not sent it';
  const NO_SOCKET = 'has sent what is no UNIX socket for its twin socket';

  it.each<[alteration: Alteration, why: string | undefined]>([
    [{}, undefined],
    [{ drops: true, adds: ['stream'] }, undefined],
    [{ drops: true }, NOTHING_SENT],
    [{ drops: true, adds: ['event'] }, NO_SOCKET],
    [{ drops: true, adds: ['datagram'] }, NO_SOCKET],
    [{ drops: true, adds: ['file', 'file', 'directory'] }, NO_SOCKET],
    [{ adds: ['directory'] }, NO_SOCKET],
    [{ fails: true, adds: ['stream'] }, 'answers VFIO_USER_VERSION with EIO'],
  ])('with %j: %s', async (alteration, why) => {
    const server = await services().serve('qat,size=64K');
    const { path, alter } = await services().relay(server);
    const onCommand = (): void => {};
    new TestClient(path, { onCommand }).close();
    const before = descriptors();
    alter({ command: user.VFIO_USER_VERSION, ...alteration });
    const connect = (): TestClient => new TestClient(path, { onCommand });
    if (why === undefined) connect().close();
    else expect(connect).toThrow(why);
    alter({});
    await until(before);
    const proxy = await services().proxy(path);
    new TestClient(proxy).close();
    new TestClient(proxy).close();
    const withProxy = descriptors();
    alter({ command: user.VFIO_USER_VERSION, ...alteration });
    const through = (): void => new TestClient(proxy).close();
    if (why === undefined) through();
    else expect(through).toThrow(/answers VFIO_USER_VERSION with E|has closed/);
    alter({});
    const last = new TestClient(proxy);
    expect(stateName(last.device)).toBe('RUNNING');
    last.close();
    await until(withProxy);
  });
});

describe('a server that sends any descriptors with any reply', () => {
  /** Clients that each ask for everything once. */
  const CLIENTS = FULL ? 3000 : 150;

  it.each([
    ['qat', 'v1'],
    ['vendor-v1', 'v2'],
    ['qat', 'auto'],
  ] as const)(
    'of %s is answered for (%s) by replies, refusals or the end of a connection, and leaves none open',
    { timeout: 4 * PROPERTY_TIMEOUT },
    async (driver, present) => {
      const server = await services().serve(`${driver},size=64K`);
      const { path, alter } = await services().relay(server);
      const proxy = await services().proxy(path, { present });
      new TestClient(proxy).close();
      new TestClient(proxy).close();
      const before = descriptors();
      const draw = chance(driver.length + present.length);
      const outcomes = new Map<string, number>();
      const count = (what: string): void => void outcomes.set(what, (outcomes.get(what) ?? 0) + 1);
      for (let n = 0; n < CLIENTS; n += 1) {
        alter({ seed: draw(1000) });
        let client: TestClient | undefined;
        try {
          client = new TestClient(proxy);
          stateName(client.device);
          const { command, body, name } = ROWS[draw(ROWS.length)] ?? { command: 0, body: new Uint8Array(0), name: '' };
          const reply = client.server.link.ask({ command, body, name });
          count(reply.errno ?? `${Math.min(1, reply.fds.length)} descriptors`);
          closeFds(reply);
        } catch (error) {
          count(errnoNameOf(error));
        }
        client?.close();
      }
      alter({});
      const last = new TestClient(proxy);
      expect(stateName(last.device)).toBe('RUNNING');
      last.close();
      await until(before);
      for (const what of ['0 descriptors', '1 descriptors']) expect(outcomes.get(what)).toBeGreaterThan(0);
      expect([...outcomes.keys()].some((what) => what.startsWith('E'))).toBe(true);
      expect(
        [...outcomes.keys()].filter((what) => !/^(E(PROTO|IO|CONNRESET|INVAL)|[01] descriptors)$/.test(what)),
      ).toEqual([]);
    },
  );
});
