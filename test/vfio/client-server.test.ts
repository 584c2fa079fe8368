import { describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
} from '../../src/abi/vfio-ioctl.ts';
import { createSim, type Sim } from '../../src/sim/create.ts';
import { parseSpec } from '../../src/sim/spec.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1Save } from '../../src/v1/save.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { deviceInfo, regionInfo } from '../../src/vfio/client/device-info.ts';
import { identify } from '../../src/vfio/client/identify.ts';
import { dmaLogOf } from '../../src/vfio/client/port-dma-log.ts';
import type { DataSessions, RegionPlace, VfioPort } from '../../src/vfio/port.ts';
import {
  deviceRequest,
  MIGRATION_REGION_INDEX,
  type DeviceHost,
  type DeviceRegions,
} from '../../src/vfio/server/device-requests.ts';
import { join } from '../support/bytes.ts';
import { UserMemory } from '../support/user-memory.ts';

const SECTION = 8192;

/** What asks a device, straight to what answers for one: with nothing that carries the requests between them. */
class Loopback implements VfioPort {
  readonly pageSize = 4096;
  readonly sessions: DataSessions;
  readonly #host: DeviceHost;
  readonly #regions: DeviceRegions = {
    own: [{ flags: 7, size: 4096, offset: 0n }],
    migration: 1n << 40n,
  };

  constructor(sim: Sim) {
    const region = sim.protocol === 'v1' ? sim.device : undefined;
    const v2 = sim.protocol === 'v2' ? sim.device : undefined;
    this.#host = { region, v2, firstLook: () => {}, reset: () => sim.device.reset() };
    this.sessions = new OwnSessions(v2);
  }

  getInfo(argument: Uint8Array): void {
    this.#make(VFIO_DEVICE_GET_INFO, argument);
  }
  getRegionInfo(argument: Uint8Array): void {
    this.#make(VFIO_DEVICE_GET_REGION_INFO, argument);
  }
  feature(_what: string, argument: Uint8Array): void {
    this.#make(VFIO_DEVICE_FEATURE, argument);
  }
  reset(): void {
    this.#make(VFIO_DEVICE_RESET, new Uint8Array(0));
  }
  read(_region: RegionPlace, at: number, into: Uint8Array): number {
    this.#host.region?.read(at, into);
    return into.length;
  }
  write(_region: RegionPlace, at: number, from: Uint8Array): number {
    this.#host.region?.write(at, from);
    return from.length;
  }

  #make(command: number, bytes: Uint8Array): void {
    const memory = new UserMemory(bytes);
    const argument = memory.argument(memory.address);
    deviceRequest(argument, command, this.#host, this.#regions, {
      openDataFd: (_resuming, tell) => tell(0),
      takeEventFd: (fd) => fd,
    });
  }
}

/** The sessions of the device itself. */
class OwnSessions implements DataSessions {
  readonly #device: V2Device | undefined;

  constructor(device: V2Device | undefined) {
    this.#device = device;
  }

  change<T>(request: () => T): T {
    return request();
  }
  begin(): V2DataSession {
    const session = this.current();
    if (session === undefined) throw new Error('no session has begun');
    return session;
  }
  current(): V2DataSession | undefined {
    return this.#device?.openSession();
  }
  end(): void {
    // the device has ended it
  }
}

const portTo = (spec: string): VfioPort => new Loopback(createSim(parseSpec(spec)));

describe('what asks a device understands what answers for one', () => {
  it('about its regions', () => {
    const port = portTo('vendor-v1,size=16K,section=8K');
    expect(deviceInfo(port).regions).toBe(MIGRATION_REGION_INDEX + 1);
    expect(regionInfo(port, 0)).toMatchObject({ size: 4096, flags: 7, type: undefined });
    expect(regionInfo(port, 1)).toBeUndefined();
    expect(regionInfo(port, MIGRATION_REGION_INDEX)).toMatchObject({
      offset: 1n << 40n,
      type: { type: 3, subtype: 1 },
      sparse: [{ offset: DATA_OFFSET, size: SECTION }],
    });
  });

  it.each([
    ['hisi-v1,size=16K', 3, 32, undefined],
    ['mlx5-v1,size=16K', 3, 32, undefined],
    ['nvidia-v1,size=16K,section=8K', 7, DATA_OFFSET, 8192],
    ['spdk-v1,size=16K', 7, DATA_OFFSET, 20_480],
  ])('about the migration region of %s: what can be mapped, if anything', (spec, flags, begin, mappable) => {
    const sim = createSim(parseSpec(spec));
    if (sim.protocol !== 'v1') throw new Error('not v1');
    const { regionSize: size, dataSection } = sim.device;
    expect(dataSection.offset).toBe(begin);
    const sparse = mappable === undefined ? undefined : [{ offset: begin, size: mappable }];
    const VFIO_REGION_INFO_FLAG_CAPS = 8;
    expect(regionInfo(new Loopback(sim), MIGRATION_REGION_INDEX)).toEqual({
      index: MIGRATION_REGION_INDEX,
      flags: flags | VFIO_REGION_INFO_FLAG_CAPS,
      size,
      offset: 1n << 40n,
      type: { type: 3, subtype: 1 },
      sparse,
    });
  });

  it('about the protocol that it speaks, and that it logs no DMA', () => {
    expect(identify(portTo('vendor-v1,size=16K,section=8K')).protocol).toBe('v1');
    const port = portTo('qat,size=16K');
    expect(identify(port)).toMatchObject({ protocol: 'v2', device: { migrationFlags: 7 } });
    expect(dmaLogOf(port)).toBeUndefined();
  });

  it('so that a v1 device is saved', () => {
    const sim = createSim(parseSpec('vendor-v1,size=16K,section=8K'));
    const found = identify(new Loopback(sim));
    if (found.protocol !== 'v1') throw new Error('not v1');
    expect(savedBy((sink) => new V1Save(found.device, sink)).length).toBeGreaterThan(sim.bar.length);
  });

  it('so that a v2 device is saved and restored', () => {
    const source = createSim(parseSpec('qat,size=16K,seed=7'));
    const from = identify(new Loopback(source));
    const destination = createSim(parseSpec('qat,size=16K,seed=8'));
    const to = identify(new Loopback(destination));
    if (from.protocol !== 'v2' || to.protocol !== 'v2') throw new Error('not v2');
    expect(destination.bar).not.toEqual(source.bar);
    const restore = new V2Restore(to.device);
    restore.setup();
    restore.load(savedBy((sink) => new V2Save(from.device, sink)));
    restore.complete();
    expect(destination.bar).toBeBytes(source.bar);
  });
});

function savedBy(saveTo: (sink: (piece: Uint8Array) => void) => V1Save | V2Save): Uint8Array {
  const pieces: Uint8Array[] = [];
  const save = saveTo((piece) => pieces.push(piece.slice()));
  save.setup();
  save.stop();
  save.complete();
  return join(pieces);
}
