import { beforeEach, describe, expect, it } from 'vitest';
import { vfio_device_info, vfio_region_info } from '../../../src/abi/vfio.ts';
import { ShimError } from '../../../src/error.ts';
import { addedRegionInfo, infoWithAddedRegion, regionAskedFor } from '../../../src/vfio/server/added-region.ts';
import { migrationRegionInfo, type MigrationRegion } from '../../../src/vfio/server/migration-region.ts';
import { BytePort } from '../../support/byte-port.ts';
import { noise } from '../../support/bytes.ts';
import { outcome } from '../../support/errno.ts';
import { BAD_ADDRESS, FILLER, UserMemory } from '../../support/user-memory.ts';

const memory = new UserMemory(new Uint8Array(256 * 1024));
let port: BytePort;

/** `struct vfio_device_info` with its padding, and a chain of capabilities behind it. */
const WHOLE = 24;
const CAPS = noise(40);

/**
 * Answers as vfio_pci_ioctl_get_info does (drivers/vfio/pci/vfio_pci_core.c, Linux 6.12): the struct up to argsz, and if there are
 * capabilities, either all of them or the argsz that they need.
 */
function driver(caps: Uint8Array): (request: string, argument: Uint8Array) => boolean {
  return (request, argument) => {
    if (request !== 'VFIO_DEVICE_GET_INFO') return false;
    const { argsz } = vfio_device_info.decode(padded(argument));
    expect(argsz).toBe(argument.length);
    const fits = argsz >= WHOLE + caps.length;
    const answer = vfio_device_info.encode(
      {
        argsz: caps.length === 0 || fits ? argsz : WHOLE + caps.length,
        flags: 3,
        num_regions: 9,
        num_irqs: 5,
        cap_offset: caps.length > 0 && fits ? WHOLE : 0,
      },
      new Uint8Array(WHOLE),
    );
    argument.set(answer.subarray(0, argsz));
    if (fits) argument.set(caps, WHOLE);
    return true;
  };
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(Math.max(bytes.length, WHOLE));
  whole.set(bytes);
  return whole;
}

beforeEach(() => {
  port = new BytePort();
});

describe('VFIO_DEVICE_GET_INFO with a region added', () => {
  /** Whether it was answered, or its errno; `room` bytes of the argument are accessible. */
  function ask(argsz: number, room = Math.max(argsz, 4)): string {
    let isAnswered = false;
    const at = memory.put(padded(vfio_device_info.encode({ argsz })), room);
    const result = outcome(() => (isAnswered = infoWithAddedRegion(memory.argument(at), port)));
    return result === 'OK' ? `OK ${isAnswered}` : result;
  }

  it('is the driver’s own answer with one region more, as far as argsz goes', () => {
    port.answer = driver(new Uint8Array(0));
    for (let argsz = 16; argsz < 40; argsz += 1) {
      expect(ask(argsz)).toBe('OK true');
      const bytes = memory.end(argsz);
      expect(vfio_device_info.decode(padded(bytes.subarray(0, WHOLE)))).toEqual({
        argsz,
        flags: 3,
        num_regions: 10,
        num_irqs: 5,
        cap_offset: 0,
      });
      expect(bytes.subarray(WHOLE).every((byte) => byte === FILLER)).toBe(true);
    }
  });

  it('leaves an argsz that is too small to the driver, unasked, and writes nothing', () => {
    port.answer = driver(new Uint8Array(0));
    for (let argsz = 0; argsz < 16; argsz += 1) {
      expect(ask(argsz, 24)).toBe('OK false');
      expect(memory.end(24)).toBeBytes(padded(vfio_device_info.encode({ argsz })));
    }
    expect(port.asked).toEqual([]);
  });

  it('has the driver’s capabilities if argsz has room for them, and otherwise the argsz that they need', () => {
    const whole = WHOLE + CAPS.length;
    port.answer = driver(CAPS);
    for (let argsz = 16; argsz < whole + 10; argsz += 1) {
      expect(ask(argsz)).toBe('OK true');
      const bytes = memory.end(argsz);
      const fits = argsz >= whole;
      const info = vfio_device_info.decode(padded(bytes.subarray(0, WHOLE)));
      expect(info).toMatchObject({ argsz: fits ? argsz : whole, num_regions: 10, cap_offset: fits ? WHOLE : 0 });
      if (fits) expect(bytes.subarray(WHOLE, whole)).toBeBytes(CAPS);
      expect(bytes.subarray(fits ? whole : WHOLE).every((byte) => byte === FILLER)).toBe(true);
    }
  });

  it.each([
    ['64 KiB, and no more', 65_536, 2],
    ['65,537 bytes', 65_537, 1],
  ])('passes on an answer of %s', (_, size, calls) => {
    port.answer = driver(noise(size - WHOLE));
    expect(ask(100_000)).toBe('OK true');
    expect(port.asked).toHaveLength(calls);
    expect(vfio_device_info.decode(memory.end(100_000))).toMatchObject({
      argsz: calls === 2 ? 100_000 : size,
      num_regions: 10,
      cap_offset: calls === 2 ? WHOLE : 0,
    });
  });

  it('fails as the driver does, and faults if there is no memory: nothing is written', () => {
    port.answer = () => {
      throw new ShimError('ERR_SYSCALL', 'no device', { errno: 'ENODEV' });
    };
    expect(ask(24)).toBe('ENODEV');
    expect(memory.end(24)).toBeBytes(padded(vfio_device_info.encode({ argsz: 24 })));
    port.answer = driver(new Uint8Array(0));
    expect(ask(24, 20)).toBe('EFAULT');
    expect(memory.end(20)).toBeBytes(vfio_device_info.encode({ argsz: 24 }));
    expect(outcome(() => infoWithAddedRegion(memory.argument(BAD_ADDRESS), port))).toBe('EFAULT');
  });
});

describe('VFIO_DEVICE_GET_REGION_INFO of a region that was added', () => {
  const region: MigrationRegion = {
    generation: 'v1',
    offset: 0x7656_0300n << 32n,
    dataSection: { offset: 4096, size: 65_536 },
    mappable: true,
  };
  const ADDED = 9;

  function ask(index: number, argsz: number, room = Math.max(argsz, 32)): boolean {
    const at = memory.put(vfio_region_info.encode({ argsz, index, flags: 7 }), room);
    expect(regionAskedFor(memory.argument(at))).toBe(index);
    return addedRegionInfo(memory.argument(at), ADDED, region);
  }

  it('shows the region, with its capabilities if argsz has room for them', () => {
    for (let argsz = 32; argsz < 140; argsz += 1) {
      expect(ask(ADDED, argsz)).toBe(true);
      const expected = migrationRegionInfo(argsz, ADDED, region);
      expect(expected).toHaveLength(argsz < 80 ? 32 : 80);
      expect(vfio_region_info.decode(expected)).toMatchObject({ index: ADDED, offset: region.offset, size: 69_632n });
      const bytes = memory.end(argsz);
      expect(bytes.subarray(0, expected.length)).toBeBytes(expected);
      expect(bytes.subarray(expected.length).every((byte) => byte === FILLER)).toBe(true);
    }
  });

  it('leaves the driver’s regions, and an argsz that is too small, to the driver: nothing is written', () => {
    for (const [index, argsz] of [
      [0, 32],
      [ADDED - 1, 80],
      [ADDED + 1, 80],
      [0xffff_ffff, 80],
      [ADDED, 0],
      [ADDED, 31],
    ] as const) {
      expect(ask(index, argsz)).toBe(false);
      const room = Math.max(argsz, 32);
      expect(memory.end(room).subarray(0, 32)).toBeBytes(vfio_region_info.encode({ argsz, index, flags: 7 }));
    }
  });

  it('faults if there is no memory', () => {
    expect(outcome(() => addedRegionInfo(memory.argument(BAD_ADDRESS), ADDED, region))).toBe('EFAULT');
    expect(outcome(() => regionAskedFor(memory.argument(BAD_ADDRESS)))).toBe('EFAULT');
    expect(outcome(() => ask(ADDED, 80, 79))).toBe('EFAULT');
    expect(
      memory
        .end(79)
        .subarray(32)
        .every((byte) => byte === FILLER),
    ).toBe(true);
  });
});
