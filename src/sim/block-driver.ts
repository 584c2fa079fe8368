import { struct } from '../abi/struct.ts';
import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import type { SimMemory } from './memory.ts';
import type { DriverName, SimSpec } from './spec.ts';
import type { V2Driver } from './v2-device.ts';

/** What the simulated drivers other than mtty send first: who they are and how much follows. */
const setup = struct('sim_setup', 32, {
  magic: ['u32', 0],
  version: ['u32', 4],
  compat: ['u32', 8],
  reserved: ['u32', 12],
  size: ['u64', 16],
  reserved_2: ['u64', 24],
});

const magics: Readonly<Partial<Record<DriverName, number>>> = { qat: 0x51415434, pds: 0x50445331, hisi: 0x48495341 };

const flags: Readonly<Partial<Record<DriverName, number>>> = {
  qat: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
  pds: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P,
  hisi: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY,
};

/**
 * `qat`, `pds` and `hisi`: a setup block and then the device's memory. A destination checks version, compatibility and
 * size as soon as the setup block is complete, within the write.
 */
export function blockDriver(spec: SimSpec, memory: SimMemory): V2Driver {
  const { driver, version, compat, size } = spec;
  const mine = { magic: magics[driver] ?? 0, version, compat, size: BigInt(size) };
  return {
    migrationFlags: flags[driver] ?? VFIO_MIGRATION_STOP_COPY,
    setup: setup.encode(mine),
    payloadSize: size,
    forgetsRefusal: false,
    readPayload: (position, into) => into.set(memory.bar.subarray(position, position + into.length)),
    writePayload: (position, from) => memory.bar.set(from, position),
    checkSetup(bytes) {
      const theirs = setup.decode(bytes);
      const fits = theirs.magic === mine.magic && theirs.compat === compat && theirs.size === mine.size;
      return fits && theirs.version <= version ? undefined : 'EINVAL';
    },
  };
}
