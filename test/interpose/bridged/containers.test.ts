import { afterEach, describe, expect, it } from 'vitest';
import { VFIO_IOMMU_DIRTY_PAGES_FLAG_START, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP } from '../../../src/abi/vfio-iommu.ts';
import { DirtyHost, type HostDevice } from '../../support/dirty-host.ts';
import { EXACT, HardwareContainer, SimLog } from '../../support/dirty-world.ts';

const START = VFIO_IOMMU_DIRTY_PAGES_FLAG_START;
const STOP = VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP;
const LOW = { first: 0, end: 160 };
const MAIN = { first: 256, end: 900 };
const MAPPINGS = [LOW, MAIN];

let host: DirtyHost;
afterEach(() => host[Symbol.dispose]());

const device = (n: number, log?: SimLog): HostDevice => ({
  name: `0000:0${n}:00.0`,
  group: n,
  ...(log !== undefined && { log }),
});

describe('a v1 VMM asks a container of the kernel for dirty pages', () => {
  it('tells it what the devices of the container have logged', () => {
    host = new DirtyHost(MAPPINGS);
    const logs = [new SimLog(), new SimLog()];
    const { container } = host.open(logs.map((log, n) => device(n, log)));
    host.control(container, START);
    expect(host.container.isLogging).toBe(true);
    logs[0]?.wrote(5);
    logs[1]?.wrote(300);
    expect(host.dirty(container, LOW)).toEqual({ pages: [5], fromKernel: false });
    expect(host.dirty(container, MAIN)).toEqual({ pages: [300], fromKernel: false });
    expect(host.dirty(container, MAIN)).toEqual({ pages: [], fromKernel: false });
    host.control(container, STOP);
    expect(logs.map(({ ranges }) => ranges)).toEqual([undefined, undefined]);
    expect(host.container.isLogging).toBe(false);
    expect(host.said).toEqual([]);
  });

  it('goes on in a successor', () => {
    host = new DirtyHost(MAPPINGS);
    const log = new SimLog();
    const { container } = host.open([device(0, log)]);
    host.begin();
    host.control(container, START);
    log.wrote(7);
    host.begin();
    expect(host.dirty(container, LOW)).toEqual({ pages: [7], fromKernel: false });
    log.wrote(8);
    host.begin();
    host.control(container, START); // QEMU 5.2 does so for each device
    expect(host.dirty(container, LOW)).toEqual({ pages: [8], fromKernel: false });
    host.control(container, STOP);
    host.begin();
    host.control(container, START);
    log.wrote(9);
    expect(host.dirty(container, LOW)).toEqual({ pages: [9], fromKernel: false });
  });

  it('leaves it to the kernel if one of its devices cannot log', () => {
    for (const other of [device(1), { ...device(1), migrates: false }]) {
      host = new DirtyHost(MAPPINGS);
      const log = new SimLog();
      const { container } = host.open([device(0, log), other]);
      host.control(container, START);
      log.wrote(5);
      expect(host.dirty(container, LOW).pages).toHaveLength(160);
      expect(log.ranges).toBeUndefined();
      host[Symbol.dispose]();
    }
  });

  it('leaves it to the kernel as long as a device was asked for and has not been seen', () => {
    host = new DirtyHost(MAPPINGS);
    const log = new SimLog();
    const { container } = host.open([device(0, log)]);
    const group = host.openGroup(1);
    host.setContainer(group, container);
    const later = new SimLog();
    const fd = host.getDevice(group, device(1, later));
    host.control(container, START);
    expect(host.dirty(container, LOW)).toMatchObject({ fromKernel: true });
    host.getInfo(fd);
    host.control(container, START);
    later.wrote(9);
    expect(host.dirty(container, LOW).pages).toHaveLength(160); // what it has written before is not known
    later.wrote(10);
    expect(host.dirty(container, LOW)).toEqual({ pages: [10], fromKernel: false });
  });

  it('tells everything, once, of what a device that came while logs are read may have written', () => {
    host = new DirtyHost(MAPPINGS);
    const log = new SimLog();
    const { container } = host.open([device(0, log)]);
    host.control(container, START);
    const second = new SimLog();
    host.open([device(1, second)], container);
    expect(host.dirty(container, LOW).pages).toHaveLength(160);
    host.control(container, START);
    expect(host.dirty(container, LOW).pages).toHaveLength(160);
    second.wrote(3);
    expect(host.dirty(container, LOW).pages).toEqual([3]);
    expect(host.dirty(container, MAIN).pages).toHaveLength(644);
  });

  it('does not count a group for a container that has refused it', () => {
    host = new DirtyHost(MAPPINGS);
    const [log, other] = [new SimLog(), new SimLog()];
    const first = host.open([device(0, log)]);
    const elsewhere = new HardwareContainer([LOW]);
    const group = host.openGroup(1);
    host.setContainer(group, first.container, true); // as a VMM tries the containers that it has
    const second = host.openContainer(elsewhere);
    host.setContainer(group, second);
    host.setContainer(group, first.container, true); // it is in one
    host.getInfo(host.getDevice(group, device(1, other)));
    for (const container of [first.container, second]) host.control(container, START);
    log.wrote(1);
    other.wrote(2);
    expect(host.dirty(first.container, LOW)).toEqual({ pages: [1], fromKernel: false });
    expect(host.dirty(second, LOW)).toEqual({ pages: [2], fromKernel: false });
  });

  it('reads no log for a container whose device is in another now', () => {
    host = new DirtyHost(MAPPINGS);
    const [stays, moves] = [new SimLog(), new SimLog()];
    const first = host.open([device(0, stays), device(1, moves)]);
    host.control(first.container, START);
    host.close(first.devices[1] ?? -1);
    const log = new SimLog();
    const second = host.open([device(1, log)], host.openContainer(new HardwareContainer(MAPPINGS)));
    host.control(second.container, START);
    log.wrote(9);
    expect(host.dirty(first.container, LOW).pages).toHaveLength(160);
    stays.wrote(4);
    expect(host.dirty(first.container, LOW)).toEqual({ pages: [4], fromKernel: false });
    expect(host.dirty(second.container, LOW)).toEqual({ pages: [9], fromKernel: false });
  });

  it('leaves it to the kernel if the VMM reads the logs itself, or the run is told so', () => {
    host = new DirtyHost(MAPPINGS, 'auto');
    const log = new SimLog();
    const { container, devices } = host.open([device(0, log)]);
    host.probeLog(devices[0] ?? -1);
    host.control(container, START);
    expect(host.dirty(container, LOW)).toMatchObject({ fromKernel: true });
    expect(log.ranges).toBeUndefined();
  });

  it('owes everything after a reset, of which a driver may have forgotten', () => {
    host = new DirtyHost(MAPPINGS);
    const log = new SimLog();
    const { container, devices } = host.open([device(0, log)]);
    host.control(container, START);
    log.wrote(5);
    host.reset(devices[0] ?? -1);
    log.dirty.clear();
    expect(host.dirty(container, LOW).pages).toHaveLength(160);
    expect(host.dirty(container, LOW).pages).toEqual([]);
  });

  it('says once, and goes on with the container, if a log cannot be used', () => {
    host = new DirtyHost(MAPPINGS);
    const log = new SimLog({ ...EXACT, maxRanges: 0 });
    const { container } = host.open([device(0, log)]);
    for (let n = 0; n < 3; n += 1) {
      host.control(container, START);
      expect(host.dirty(container, LOW).pages).toHaveLength(160);
      host.control(container, STOP);
    }
    expect(host.said).toHaveLength(1);
    expect(host.said[0]).toMatch(/^devices' logs of DMA are not used.*0000:00:00\.0.*EOPNOTSUPP/);
  });

  it('never fails by itself: what is wrong with a request, the kernel says', () => {
    host = new DirtyHost(MAPPINGS);
    const log = new SimLog();
    const { container, devices } = host.open([device(0, log)]);
    host.control(container, START);
    log.wrote(5);
    for (const change of [
      { bitmap_pgsize: 8192n },
      { bitmap_size: 8n },
      { bitmap_data: 8n },
      { size: 0n },
      { size: 2n ** 63n },
      { iova: 1n },
      { iova: 2n ** 64n - 4096n },
    ]) {
      expect(host.dirty(container, LOW, change), JSON.stringify(Object.keys(change))).toMatchObject({
        fromKernel: true,
      });
    }
    expect(() => host.dirty(container, { first: 0, end: 100 })).toThrow(/EINVAL/); // it cuts a mapping
    expect(host.dirty(container, LOW)).toEqual({ pages: [5], fromKernel: false });
    host.close(devices[0] ?? -1);
    expect(host.dirty(container, LOW).pages).toHaveLength(160);
    expect(host.dirty(container, LOW).pages).toHaveLength(160);
  });

  it.each([
    ['EPERM', true],
    ['ESRCH', false],
  ] as const)('whoever cannot be looked into may have put devices anywhere: %s, %s', (errno, fromKernel) => {
    host = new DirtyHost(MAPPINGS);
    const log = new SimLog();
    const { container } = host.open([device(0, log)]);
    host.control(container, START);
    const group = host.openGroup(7);
    host.fails = errno;
    host.setContainer(group, container);
    host.fails = undefined;
    log.wrote(5);
    const told = host.dirty(container, LOW);
    expect(told.pages.length).toBe(fromKernel ? 160 : 1);
    host.begin();
    expect(host.dirty(container, LOW).pages.length).toBe(fromKernel ? 160 : 0);
  });

  it('knows no more containers than there is room for', () => {
    host = new DirtyHost(MAPPINGS);
    const all = Array.from({ length: 9 }, (_, n) => {
      const log = new SimLog();
      const { container } = host.open([device(n, log)]);
      host.control(container, START);
      log.wrote(n);
      return container;
    });
    const answers = all.map((container) => host.dirty(container, LOW));
    expect(answers.map(({ fromKernel }) => fromKernel)).toEqual([...Array(8).fill(false), true]);
    // one that was closed makes room
    host.close(all[3] ?? -1);
    const log = new SimLog();
    const { container } = host.open([device(0, log)]);
    host.control(container, START);
    log.wrote(77);
    expect(host.dirty(container, LOW)).toEqual({ pages: [77], fromKernel: false });
  });
});
