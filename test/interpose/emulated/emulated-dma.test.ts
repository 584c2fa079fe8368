import { beforeEach, describe, expect, it } from 'vitest';
import { EmulatedDma, type DmaPeer, type DmaReach } from '../../../src/interpose/emulated/emulated-dma.ts';
import { MappedProcesses, ownerOf } from '../../../src/interpose/emulated/mapped-processes.ts';
import { DMA_MEMORY_SIZE, dmaMemory } from '../../../src/interpose/memory/dma-memory.ts';
import { createSim, type Sim } from '../../../src/sim/create.ts';
import { DMA_MAGIC, DMA_PAGE, dma_record, dmaPage } from '../../../src/sim/dma.ts';
import { DRIVERS } from '../../../src/sim/drivers.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import { V1RegisterAccess } from '../../../src/v1/registers.ts';
import { V1 } from '../../../src/v1/states.ts';
import { DraftAccess } from '../../../src/v1/drafts/registers.ts';
import { S2018, S2019 } from '../../../src/v1/drafts/states.ts';
import { V2 } from '../../../src/v2/states.ts';
import { cleanBitmap } from '../../../src/vfio/dma-log.ts';
import { device_log } from '../../../src/vfio/server/device-log.ts';
import { DmaMappings } from '../../../src/vfio/server/dma-mappings.ts';
import { MAPPING_STRIDE } from '../../../src/vfio/server/mapping.ts';
import { failure, notYet, outcome } from '../../support/errno.ts';
import { growth, NOTHING, TURNS } from '../../support/growth.ts';
import { GuardedMemory } from '../../support/self-call.ts';

const CONTAINER = 5n;
const PAGES = 64;
/** Where the guest's memory is to its devices. */
const IOVA = 0x10_0000;
const RATE = 10_000;
/** The third quarter of the mapping. */
const WINDOW = { at: IOVA + (PAGES / 2) * DMA_PAGE, pages: PAGES / 4 };

const guest = new GuardedMemory(PAGES);
let mappings: DmaMappings;
let reach: DmaReach & { isLogging: boolean; isOpen: () => boolean; peers: DmaReach['peers'] };
let shared: { memory: Uint8Array; arena: Uint8Array };
let device: Sim;
let peers: DmaPeer[];
let isBusMaster: boolean;
let warnings: string[];
let now: number;

function dmaOf(options = '', place = 0): EmulatedDma {
  return new EmulatedDma({
    spec: parseSpec(`qat,size=16K,dma=${RATE}${options}`),
    place,
    memory: dmaMemory(shared.memory),
    arena: shared.arena,
    device,
    isBusMaster: () => isBusMaster,
    processes: new MappedProcesses(),
    warn: (message) => warnings.push(message),
  });
}

beforeEach(() => {
  guest.bytes.fill(0);
  mappings = new DmaMappings(new Uint8Array(16 * MAPPING_STRIDE));
  const memory = { ...ownerOf(process.pid), vaddr: BigInt(guest.address), writable: true };
  mappings.map(CONTAINER, BigInt(IOVA), BigInt(PAGES * DMA_PAGE), 1n, memory);
  reach = { container: CONTAINER, isLogging: true, mappings, isOpen: () => true, peers: () => peers };
  shared = { memory: new Uint8Array(DMA_MEMORY_SIZE), arena: new Uint8Array(device_log.size) };
  device = createSim(parseSpec('qat,size=16K'));
  peers = [];
  isBusMaster = true;
  warnings = [];
  now = 1000;
});

/** The records in the guest's memory, by page of it. */
function records(): Map<number, ReturnType<typeof dma_record.decode>> {
  const found = new Map<number, ReturnType<typeof dma_record.decode>>();
  for (let page = 0; page < PAGES; page += 1) {
    const record = dma_record.decode(guest.bytes, page * DMA_PAGE);
    if (record.magic === DMA_MAGIC) found.set(page, record);
  }
  return found;
}

/** Works for some milliseconds, from a first look on. */
function work(dma: EmulatedDma, ms = 10): number {
  dma.work(now, reach);
  now += ms;
  return dma.work(now, reach);
}

const range = { iova: BigInt(IOVA), length: BigInt(PAGES * DMA_PAGE) };

/** The pages of the guest's memory that a log tells of. */
function toldBy(log: { collect: (of: typeof range) => void; tell: EmulatedDma['containerLog']['tell'] }): number[] {
  log.collect(range);
  const { bits, pageSize } = cleanBitmap(range, BigInt(DMA_PAGE));
  log.tell(range, { bits, pageSize });
  return Array.from({ length: PAGES }, (_, n) => n).filter((n) => (((bits[n >> 3] ?? 0) >> (n & 7)) & 1) === 1);
}

const dirtyPages = (dma: EmulatedDma): number[] => toldBy(dma.containerLog);
const sorted = (pages: Iterable<number>): number[] => [...pages].toSorted((a, b) => a - b);

describe('a device that does DMA', () => {
  it('writes its records to its window, page after page as drawn', () => {
    const dma = dmaOf('', 3);
    expect(work(dma)).toBe(now + 2);
    const expected = new Map<number, number>();
    for (let counter = 0; counter < 100; counter += 1) {
      expected.set(PAGES / 2 + dmaPage({ seed: 0, device: 3 }, counter, WINDOW.pages), counter);
    }
    const found = records();
    expect(sorted(found.keys())).toEqual(sorted(expected.keys()));
    for (const [page, { iova, counter, device: place }] of found) {
      expect({ iova, counter, place }).toEqual({ iova: IOVA + page * DMA_PAGE, counter: expected.get(page), place: 3 });
    }
  });

  it('writes where it is told to', () => {
    work(dmaOf(`,dma-at=0x${(IOVA + 2 * DMA_PAGE).toString(16)}+8K`));
    expect(sorted(records().keys())).toEqual([2, 3]);
  });

  it('writes nothing while it may not, and looks again if nothing would tell', () => {
    const dma = dmaOf();
    const never = Number.POSITIVE_INFINITY;
    isBusMaster = false;
    expect(work(dma)).toBe(now + 20);
    isBusMaster = true;
    expect(dma.work((now += 1000), undefined)).toBe(never);
    reach.isOpen = () => false;
    expect(work(dma)).toBe(never);
    reach.isOpen = () => true;
    mappings.unmapAll(CONTAINER, 2n);
    expect(work(dma)).toBe(never);
    expect(records().size).toBe(0);
    expect(dirtyPages(dma)).toEqual([]);
  });

  it('keeps nothing of 200,000 turns, in some of which its guest lets it write', () => {
    const dma = dmaOf();
    const turn = (): void => {
      now += 1;
      isBusMaster = now % 16 < 2;
      dma.work(now, reach);
    };
    const grown = growth(turn);
    expect(dmaMemory(shared.memory).my.counter).toBeGreaterThan(TURNS / 2);
    expect(warnings).toEqual([]);
    expect(grown.descriptors).toBe(0);
    expect(grown.bytes).toBeLessThan(NOTHING);
  });

  it('does not make up for the time in which it might not write', () => {
    const dma = dmaOf();
    work(dma, 1);
    isBusMaster = false;
    dma.work((now += 1), reach);
    isBusMaster = true;
    dma.work((now += 1000), reach);
    expect(dmaMemory(shared.memory).my.counter).toBe(10);
  });

  it('goes on in the same window when the memory behind it comes back, whatever is mapped meanwhile', () => {
    const dma = dmaOf();
    work(dma);
    mappings.unmapAll(CONTAINER, 2n);
    mappings.map(CONTAINER, 0n, BigInt(DMA_PAGE), 3n, { process: 0n, program: 0n, vaddr: 0n, writable: true });
    const before = records();
    work(dma);
    expect(records()).toEqual(before);
    const memory = { ...ownerOf(process.pid), vaddr: BigInt(guest.address), writable: true };
    mappings.map(CONTAINER, BigInt(IOVA), BigInt(PAGES * DMA_PAGE), 4n, memory);
    work(dma);
    expect(Math.min(...records().keys())).toBeGreaterThanOrEqual(PAGES / 2);
    expect(warnings).toEqual([]);
  });

  it('waits while its memory is between two programs, and goes on with what it had not written', () => {
    const dma = dmaOf();
    mappings.loseAddresses(CONTAINER, BigInt(IOVA), BigInt(PAGES * DMA_PAGE), 2n);
    work(dma);
    expect(records().size).toBe(0);
    expect(dirtyPages(dma)).toEqual([]);
    const memory = { ...ownerOf(process.pid), vaddr: BigInt(guest.address) };
    mappings.giveAddress(CONTAINER, BigInt(IOVA), BigInt(PAGES * DMA_PAGE), 3n, memory);
    work(dma);
    expect([...records().values()].map(({ counter }) => counter)).toContain(dmaMemory(shared.memory).my.counter - 1);
    expect(dmaMemory(shared.memory).my.counter).toBeLessThanOrEqual(100);
    expect(warnings).toEqual([]);
  });

  it('writes to no memory that is mapped to be read', () => {
    mappings.unmapAll(CONTAINER, 2n);
    const memory = { ...ownerOf(process.pid), vaddr: BigInt(guest.address), writable: false };
    mappings.map(CONTAINER, BigInt(IOVA), BigInt(PAGES * DMA_PAGE), 3n, memory);
    const dma = dmaOf(`,dma-at=0x${IOVA.toString(16)}+64K`);
    expect(work(dma)).toBe(Number.POSITIVE_INFINITY);
    mappings.map(CONTAINER, 0n, BigInt(DMA_PAGE), 4n, { ...memory, writable: true });
    work(dma);
    expect(records().size).toBe(0);
    expect(dirtyPages(dma)).toEqual([]);
  });

  describe('and reads what it writes', () => {
    const FROM = { at: IOVA + DMA_PAGE, pages: 5 };
    const copying = `,dma-from=0x${FROM.at.toString(16)}+${FROM.pages * DMA_PAGE}`;
    const source = (counter: number): Uint8Array => {
      const begin = (FROM.at - IOVA) / DMA_PAGE + (counter % FROM.pages);
      return guest.bytes.subarray(begin * DMA_PAGE, (begin + 1) * DMA_PAGE);
    };
    const owner = { ...ownerOf(process.pid), writable: true };
    /** Maps the guest's memory in three parts: before the source, that, and behind it. */
    const mapAround = (of: { readonly readable?: boolean; readonly vaddr?: bigint } | undefined): void => {
      mappings.unmapAll(CONTAINER, 2n);
      const at = (page: number): bigint => BigInt(guest.address + page * DMA_PAGE);
      mappings.map(CONTAINER, BigInt(IOVA), BigInt(DMA_PAGE), 3n, { ...owner, vaddr: at(0) });
      const size = BigInt(FROM.pages * DMA_PAGE);
      if (of !== undefined) mappings.map(CONTAINER, BigInt(FROM.at), size, 4n, { ...owner, vaddr: at(1), ...of });
      const rest = BigInt((PAGES - 6) * DMA_PAGE);
      mappings.map(CONTAINER, BigInt(FROM.at) + size, rest, 5n, { ...owner, vaddr: at(6) });
    };
    const WINDOW_THERE = `,dma-at=0x${WINDOW.at.toString(16)}+64K`;

    beforeEach(() => guest.bytes.forEach((_, at) => (guest.bytes[at] = at * 7 + (at >> 12))));

    it('has behind each record what the page in its turn has there, and changes no other page', () => {
      const before = guest.bytes.slice();
      const dma = dmaOf(copying);
      work(dma);
      const found = records();
      expect(found.size).toBeGreaterThan(FROM.pages);
      for (let page = 0; page < PAGES; page += 1) {
        const record = found.get(page);
        const bytes = guest.bytes.subarray(page * DMA_PAGE, (page + 1) * DMA_PAGE);
        const behind = record === undefined ? before.subarray(page * DMA_PAGE) : source(record.counter);
        const from = record === undefined ? 0 : dma_record.size;
        expect(bytes.subarray(from)).toBeBytes(behind.subarray(from, DMA_PAGE));
      }
      expect(dirtyPages(dma)).toEqual(sorted(found.keys()));
    });

    it.each<[name: string, part: Parameters<typeof mapAround>[0]]>([
      ['is not mapped', undefined],
      ['may not be read', { readable: false }],
    ])('writes nothing if its source %s', (_name, part) => {
      mapAround(part);
      const dma = dmaOf(`${copying}${WINDOW_THERE}`);
      work(dma);
      expect(records().size).toBe(0);
      expect(dirtyPages(dma)).toEqual([]);
      expect(dmaMemory(shared.memory).my.counter).toBe(100); // they are left out
      expect(warnings).toEqual([]);
      mapAround({});
      work(dma);
      expect(records().size).toBeGreaterThan(0);
    });

    it('waits while its source is between two programs', () => {
      mapAround({});
      mappings.loseAddresses(CONTAINER, BigInt(FROM.at), BigInt(FROM.pages * DMA_PAGE), 6n);
      const dma = dmaOf(`${copying}${WINDOW_THERE}`);
      work(dma);
      expect([records().size, dmaMemory(shared.memory).my.counter]).toEqual([0, 0]);
    });

    it('says once that it cannot read, and lives', () => {
      mapAround({ vaddr: 8n });
      const dma = dmaOf(`${copying}${WINDOW_THERE}`);
      for (let n = 0; n < 5; n += 1) work(dma);
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toMatch(/cannot read memory that is mapped for it: .* read of 4096 bytes at 0x8 failed$/);
      expect(records().size).toBe(0);
      expect(dirtyPages(dma)).toEqual([]);
      expect(dmaMemory(shared.memory).my.counter).toBeGreaterThan(1);
    });
  });

  it('says once that it cannot write, and lives', () => {
    mappings.unmapAll(CONTAINER, 2n);
    const memory = { ...ownerOf(process.pid), vaddr: 8n, writable: true };
    mappings.map(CONTAINER, BigInt(IOVA), BigInt(PAGES * DMA_PAGE), 3n, memory);
    const dma = dmaOf();
    for (let n = 0; n < 5; n += 1) work(dma);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/cannot write to memory that is mapped for it: .* failed$/);
    expect(dmaMemory(shared.memory).my.counter).toBeGreaterThan(1);
  });

  it('says once that it cannot find out whether it is open', () => {
    reach.isOpen = () => {
      throw failure('EMFILE');
    };
    const dma = dmaOf();
    for (let n = 0; n < 5; n += 1) expect(work(dma)).toBe(now + 2);
    expect(warnings).toHaveLength(1);
    expect(records().size).toBe(0);
  });

  it('leaves alone the process that has got the id of one that mapped memory', () => {
    mappings.unmapAll(CONTAINER, 2n);
    const me = ownerOf(process.pid);
    const other = { ...me, process: me.process - (1n << 22n) }; // started a moment before
    const memory = { ...other, vaddr: BigInt(guest.address), writable: true };
    mappings.map(CONTAINER, BigInt(IOVA), BigInt(PAGES * DMA_PAGE), 3n, memory);
    work(dmaOf());
    expect(records().size).toBe(0);
    expect(warnings).toEqual([]);
  });
});

describe('the states in which a device does DMA', () => {
  function writesIn(enter: () => void): boolean {
    enter();
    const before = dmaMemory(shared.memory).my.counter;
    const next = work(dmaOf());
    expect(next === Number.POSITIVE_INFINITY).toBe(dmaMemory(shared.memory).my.counter === before);
    return dmaMemory(shared.memory).my.counter > before;
  }

  it('are RUNNING and PRE_COPY in v2', () => {
    const states = Object.entries(V2).filter(([, state]) => state !== V2.ERROR);
    const writing = states.filter(([, state]) =>
      writesIn(() => {
        device = createSim(parseSpec('qat,size=16K'));
        if (device.protocol === 'v2') device.device.setState(state);
      }),
    );
    expect(writing.map(([name]) => name)).toEqual(['RUNNING', 'PRE_COPY']);
  });

  it('are those with the bit RUNNING in v1', () => {
    const states = Object.entries(V1).filter(([, state]) => state !== V1.ERROR);
    const writing = states.filter(([, state]) =>
      writesIn(() => {
        device = createSim(parseSpec('vendor-v1,size=16K'));
        if (device.protocol === 'v1') new V1RegisterAccess(device.device).setDeviceState(state);
      }),
    );
    expect(writing.map(([name]) => name)).toEqual(['RUNNING', 'PRE_COPY']);
  });

  it('are those in which the guest runs in the drafts', () => {
    const drafts = [
      ['draft-2018', [S2018.RUNNING, S2018.MIGRATION_SETUP, S2018.MIGRATION_PRECOPY], S2018.MIGRATION_STOPNCOPY],
      ['draft-2019', [S2019.RUNNING, S2019.PRE_COPY], S2019.STOP_COPY],
    ] as const;
    for (const [driver, running, stopped] of drafts) {
      const sim = createSim(parseSpec(`${driver},size=16K`));
      device = sim;
      if (sim.protocol !== driver) throw new Error('another driver');
      const access = new DraftAccess(sim.device, sim.device.draft);
      for (const state of running)
        expect(
          writesIn(() => access.write('device_state', state)),
          String(state),
        ).toBe(true);
      expect(writesIn(() => access.write('device_state', stopped))).toBe(false);
    }
  });

  it('are none of a device that does not say in which it is, which is looked at again', () => {
    for (const error of [notYet(), failure('EIO')]) {
      if (device.protocol !== 'v2') throw new Error('another driver');
      device.device.getState = () => {
        throw error;
      };
      const dma = dmaOf();
      expect(work(dma)).toBe(now + 20);
      expect(dmaMemory(shared.memory).my.counter).toBe(0);
    }
  });

  it('include the first one of every driver', () => {
    for (const driver of DRIVERS) {
      expect(
        writesIn(() => (device = createSim(parseSpec(driver)))),
        driver,
      ).toBe(true);
    }
  });
});

describe('what is told of DMA', () => {
  const everything = [{ iova: 0n, length: 2n ** 48n }];

  it('is each page that was written to, by container and device, once by each', () => {
    const dma = dmaOf();
    dma.deviceLog.start(everything);
    work(dma);
    const written = sorted(records().keys());
    expect(written.length).toBeGreaterThan(5);
    expect([dirtyPages(dma), dirtyPages(dma)]).toEqual([written, []]);
    expect(toldBy(dma.deviceLog.window)).toEqual(written);
  });

  it('is nothing by a container or device that does not log', () => {
    reach.isLogging = false;
    const dma = dmaOf();
    work(dma);
    expect(records().size).toBeGreaterThan(5);
    expect([dirtyPages(dma), toldBy(dma.deviceLog.window)]).toEqual([[], []]);
  });

  it('is nothing with dma-log=off', () => {
    const dma = dmaOf(',dma-log=off');
    dma.deviceLog.start(everything);
    work(dma);
    expect(records().size).toBeGreaterThan(5);
    expect([dirtyPages(dma), toldBy(dma.deviceLog.window)]).toEqual([[], []]);
  });

  it('is known before a page is written to', () => {
    const dma = dmaOf();
    const at = mappings.at.bind(mappings);
    mappings.unmapAll(CONTAINER, 2n);
    mappings.map(CONTAINER, BigInt(IOVA), BigInt(PAGES * DMA_PAGE), 3n, {
      ...ownerOf(process.pid),
      vaddr: 8n, // nothing is ever written
      writable: true,
    });
    work(dma, 1);
    expect(at(CONTAINER, BigInt(IOVA))).toBeDefined();
    expect(dirtyPages(dma)).toEqual([PAGES / 2 + dmaPage({ seed: 0, device: 0 }, 0, WINDOW.pages)]);
  });

  it('is not lost with the process, and a successor goes on behind the last page', () => {
    const first = dmaOf();
    first.deviceLog.start(everything);
    work(first);
    const { counter } = dmaMemory(shared.memory).my;
    const successor = dmaOf();
    work(successor);
    expect(dmaMemory(shared.memory).my.counter).toBe(2 * counter);
    const written = sorted(records().keys());
    expect(dirtyPages(successor)).toEqual(written);
    expect(toldBy(successor.deviceLog.window)).toEqual(written);
  });

  it('is told through a draft, from when that begins', () => {
    const dma = dmaOf();
    const { dirtyPages: pages } = dma;
    reach.isLogging = false;
    work(dma);
    pages.begin();
    const [page = -1] = records().keys();
    guest.bytes.fill(0);
    work(dma);
    const into = cleanBitmap(range, BigInt(DMA_PAGE));
    pages.readAndClear(range, into);
    expect(page).toBeGreaterThanOrEqual(PAGES / 2);
    expect(Buffer.from(into.bits).readBigUInt64LE()).toBe(
      [...records().keys()].reduce((bits, each) => bits | (1n << BigInt(each)), 0n),
    );
    pages.begin(); // a reset has forgotten that it was begun
    pages.end();
    expect(dma.deviceLog.isOn).toBe(false);
  });

  it('ends when another user opens the device, who finds it as new', () => {
    const dma = dmaOf();
    dma.deviceLog.start(everything);
    work(dma);
    dma.opened();
    expect(dma.deviceLog.isOn).toBe(false);
    expect(dmaMemory(shared.memory).my).toMatchObject({ pages: 0, counter: 0 });
    expect(dirtyPages(dma)).toEqual([]);
    guest.bytes.fill(0);
    work(dma, 1);
    expect(records().get(PAGES / 2 + dmaPage({ seed: 0, device: 0 }, 9, WINDOW.pages))?.counter).toBe(9);
  });
});

describe('writes to other devices', () => {
  const counts = (dma: EmulatedDma): unknown => dma.peerCounts;
  const peerOf = (spec: string): Sim => {
    const sim = createSim(parseSpec(spec));
    peers.push({ name: `${peers.length}`, device: sim });
    return sim;
  };

  /** Whether a peer takes the writes of a device: each of them, or none. */
  function takes(): boolean {
    shared.memory = new Uint8Array(DMA_MEMORY_SIZE);
    const dma = dmaOf(',dma-peers=1');
    work(dma);
    const { peerWrites = 0, violations = 0 } = dma.peerCounts ?? {};
    expect([peerWrites, violations].toSorted((a, b) => a - b)).toEqual([0, 100]);
    expect(warnings.splice(0).length).toBe(violations > 0 ? 1 : 0);
    return peerWrites > 0;
  }

  it('find one stopped in v2 unless it runs or is in a P2P state', () => {
    const taking = Object.entries(V2).filter(([, state]) => {
      if (state === V2.ERROR) return false;
      peers = [];
      const sim = peerOf('qat,size=16K');
      if (sim.protocol === 'v2') sim.device.setState(state);
      return takes();
    });
    expect(taking.map(([name]) => name).toSorted()).toEqual(['PRE_COPY', 'PRE_COPY_P2P', 'RUNNING', 'RUNNING_P2P']);
  });

  it('find one stopped in v1 unless it runs', () => {
    const taking = Object.entries(V1).filter(([, state]) => {
      if (state === V1.ERROR) return false;
      peers = [];
      const sim = peerOf('vendor-v1,size=16K');
      if (sim.protocol === 'v1') new V1RegisterAccess(sim.device).setDeviceState(state);
      return takes();
    });
    expect(taking.map(([name]) => name)).toEqual(['RUNNING', 'PRE_COPY']);
  });

  it('find a failed one stopped', () => {
    const sim = peerOf('qat,size=16K,fault=STOP@1:EIO!');
    if (sim.protocol === 'v2') expect(outcome(() => sim.device.setState(V2.STOP))).toBe('EIO');
    expect(takes()).toBe(false);
  });

  it('are counted by page and device, and not made', () => {
    const [running, stopped, silent] = [peerOf('qat,size=16K'), peerOf('qat,size=16K'), peerOf('qat,size=16K')];
    peerOf('vendor-v1,size=16K');
    if (stopped.protocol === 'v2') stopped.device.setState(V2.STOP);
    if (silent.protocol === 'v2') {
      silent.device.getState = () => {
        throw notYet();
      };
    }
    const dma = dmaOf(',dma-peers=1');
    work(dma);
    expect(counts(dma)).toEqual({ peerWrites: 200, violations: 100 });
    expect(warnings).toEqual(['the device writes to 1, which is in STOP']);
    for (const { bar } of [running, stopped]) expect(bar).toBeBytes(new Uint8Array(16 * 1024));
  });

  it('are counted over all users and processes, with one warning', () => {
    const sim = peerOf('qat,size=16K');
    if (sim.protocol === 'v2') sim.device.setState(V2.STOP);
    const first = dmaOf(',dma-peers=1');
    work(first);
    const successor = dmaOf(',dma-peers=1');
    work(successor);
    successor.opened();
    work(successor);
    expect(counts(successor)).toEqual({ peerWrites: 0, violations: 300 });
    expect(warnings).toHaveLength(1);
  });

  it('are none while the device writes nothing', () => {
    peerOf('qat,size=16K');
    const dma = dmaOf(',dma-peers=1');
    isBusMaster = false;
    work(dma);
    isBusMaster = true;
    mappings.unmapAll(CONTAINER, 2n);
    work(dma);
    expect(counts(dma)).toEqual({ peerWrites: 0, violations: 0 });
  });

  it('are none without dma-peers, and not told of', () => {
    reach.peers = () => {
      throw new Error('somebody looks');
    };
    const dma = dmaOf();
    work(dma);
    expect(records().size).toBeGreaterThan(5);
    expect(counts(dma)).toBeUndefined();
  });
});
