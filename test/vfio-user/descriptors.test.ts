import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { vfio_irq_info, vfio_irq_set, vfio_region_info } from '../../src/abi/vfio-device.ts';
import * as user from '../../src/abi/vfio-user.ts';
import { vfio_device_feature } from '../../src/abi/vfio-v2.ts';
import { stateName } from '../../src/device/migratable.ts';
import { createEventFd } from '../../src/sys/fd.ts';
import { createSharedMemory } from '../../src/sys/memory.ts';
import { SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { closeFds } from '../../src/vfio-user/wire/message.ts';
import { patient } from '../support/patience.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';

const services = useServices();
const PATIENCE = patient(20_000);
const SIZE = 0x4000;
const DMA_FILE = user.VFIO_USER_F_DMA_REGION_MMAP;

type Kind = 'file' | 'event' | 'socket';
type Outcome = 'taken' | 'refused';

interface Row {
  readonly name: string;
  readonly command: number;
  readonly body: Uint8Array;
  /** Which descriptors, and what comes of them. */
  readonly tries: readonly (readonly [fds: readonly Kind[], outcome: Outcome])[];
}

const rowOf = (
  [name, command, body]: readonly [name: string, command: number, body: Uint8Array],
  tries: Row['tries'],
): Row => ({ name, command, body, tries });
const map = (flags: number): Uint8Array =>
  user.vfio_user_dma_map.encode({ argsz: 32, flags: 3 | flags, addr: 0x10_0000n, size: BigInt(SIZE) });
const irqs = (index: number, count: number): Uint8Array =>
  vfio_irq_set.encode({ argsz: 20, flags: 0x24, index, start: 0, count });

/** Messages that carry descriptors: with none, one, one too many, and such of another kind. */
const CARRYING: readonly Row[] = [
  {
    name: 'DMA_MAP of a file',
    command: user.VFIO_USER_DMA_MAP,
    body: map(DMA_FILE),
    tries: [
      [[], 'refused'],
      [['file'], 'taken'],
      [['file', 'file'], 'refused'],
      [['event'], 'refused'],
      [['socket'], 'refused'],
    ],
  },
  {
    name: "DMA_MAP of the client's own memory",
    command: user.VFIO_USER_DMA_MAP,
    body: map(0),
    tries: [
      [[], 'taken'],
      [['file', 'event'], 'refused'],
      [['event'], 'refused'],
    ],
  },
  {
    name: 'SET_IRQS of INTx',
    command: user.VFIO_USER_DEVICE_SET_IRQS,
    body: irqs(0, 1),
    tries: [
      [[], 'taken'], // de-assigned
      [['event'], 'taken'],
      [['event', 'event'], 'refused'],
      [['file'], 'refused'],
      [['socket'], 'refused'],
    ],
  },
];

/** Messages that carry none: one that comes all the same is closed. */
const OTHERS: readonly Row[] = (
  [
    ['DMA_UNMAP', user.VFIO_USER_DMA_UNMAP, user.vfio_user_dma_unmap.encode({ argsz: 24, size: BigInt(SIZE) })],
    ['DEVICE_GET_INFO', user.VFIO_USER_DEVICE_GET_INFO, user.vfio_user_device_info.encode({ argsz: 16 })],
    ['GET_REGION_INFO', user.VFIO_USER_DEVICE_GET_REGION_INFO, vfio_region_info.encode({ argsz: 256, index: 7 })],
    ['REGION_IO_FDS', user.VFIO_USER_DEVICE_GET_REGION_IO_FDS, user.vfio_user_region_io_fds.encode({ argsz: 16 })],
    ['GET_IRQ_INFO', user.VFIO_USER_DEVICE_GET_IRQ_INFO, vfio_irq_info.encode({ argsz: 16 })],
    ['REGION_READ', user.VFIO_USER_REGION_READ, user.vfio_user_region_access.encode({ count: 8 })],
    [
      'REGION_WRITE',
      user.VFIO_USER_REGION_WRITE,
      Buffer.concat([user.vfio_user_region_access.encode({ count: 4 }), new Uint8Array(4)]),
    ],
    ['DEVICE_RESET', user.VFIO_USER_DEVICE_RESET, new Uint8Array(0)],
    ['DEVICE_FEATURE', user.VFIO_USER_DEVICE_FEATURE, vfio_device_feature.encode({ argsz: 8, flags: 0x4_0002 })],
  ] as const
).map((row) =>
  rowOf(row, [
    [[], 'taken'],
    [['file'], 'taken'],
    [['event', 'socket'], 'taken'],
  ]),
);

/** Those that are v2's or v1's alone, or that a device in RUNNING refuses, whatever comes with them. */
const REFUSED: readonly Row[] = (
  [
    ['MIG_DATA_READ', user.VFIO_USER_MIG_DATA_READ, user.vfio_user_mig_data.encode({ argsz: 16, size: 8 })],
    [
      'MIG_DATA_WRITE',
      user.VFIO_USER_MIG_DATA_WRITE,
      Buffer.concat([user.vfio_user_mig_data.encode({ argsz: 16, size: 8 }), new Uint8Array(8)]),
    ],
    ['DIRTY_PAGES', user.VFIO_USER_DIRTY_PAGES, user.vfio_user_dirty_pages.encode({ argsz: 8, flags: 7 })],
  ] as const
).map((row) =>
  rowOf(row, [
    [[], 'refused'],
    [['file'], 'refused'],
  ]),
);

const descriptors = (): number => readdirSync('/proc/self/fd').length;

describe.each([
  ['serve', undefined],
  ['proxy', 'auto'],
] as const)('the descriptors of a message to %s', (_what, present) => {
  const cases = [...CARRYING, ...OTHERS, ...REFUSED].flatMap(({ name, command, body, tries }) =>
    tries.map(([fds, outcome]) => ({ name, fds, command, body, outcome })),
  );
  const at = async (): Promise<string> => {
    const server = await services().serve('qat,size=64K');
    return present === undefined ? server : services().proxy(server, { present });
  };

  it.each(cases)('$name with $fds: $outcome, and nothing is left open', async ({ command, body, fds, outcome }) => {
    const path = await at();
    using file = createSharedMemory('memory', SIZE);
    using event = createEventFd();
    const [socket, other] = socketPair(SOCK_STREAM);
    const numbers = { file: file.number, event: event.number, socket: socket.number };
    new TestClient(path).close();
    new TestClient(path).close(); // by now the first has been let go
    const before = descriptors();
    const client = new TestClient(path);
    const reply = client.server.link.ask({ command, name: 'it', body, fds: fds.map((kind) => numbers[kind]) });
    closeFds(reply);
    expect(reply.errno === undefined ? 'taken' : 'refused').toBe(outcome);
    expect(stateName(client.device)).toBe('RUNNING');
    client.close();
    const isGone = (): true | undefined => (descriptors() <= before ? true : undefined);
    await poll(isGone, PATIENCE, () => `${descriptors()} descriptors to become ${before}`);
    for (const each of [socket, other]) each.close();
  });
});
