import { describe, expect, it } from 'vitest';
import { parseSize } from '../../src/sim/size.ts';
import { inShort } from '../support/runs.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';
import { patient } from '../support/patience.ts';

const services = useServices();
const KIB = 1024;
const MIB = KIB * KIB;
const PATIENCE = patient(60_000);

/** What a client says to take with one transfer: MIG_DATA_READ and MIG_DATA_WRITE have no more. */
const capabilities = (max_data_xfer_size: number): object => ({
  capabilities: { max_msg_fds: 8, max_data_xfer_size, migration: { pgsize: 4096 } },
});

describe('a state', () => {
  const routes = [
    ['qat', undefined],
    ['qat', 'v1'],
    ['vendor-v1', undefined],
    ['vendor-v1', 'v2'],
  ] as const;
  /** Bytes of memory, and of a transfer. No simulated device has less than one byte of memory. */
  const sizes = [
    ['1', 1024],
    ['4K', 1024],
    ['1M', 100_000],
    ['4K', MIB],
    ['1M', 4096],
    ['1M', 32 * KIB],
    ['64M', MIB],
  ] as const;
  const tried = inShort(sizes, (_, n) => n < 3);
  const cases = routes.flatMap((route) => tried.map((size) => [...route, ...size] as const));

  it.each(cases)(
    'of %s, seen in %s, with %s of memory passes in transfers of at most %i bytes',
    { timeout: 4 * PATIENCE },
    async (driver, present, size, limit) => {
      const device = async (seed: number): Promise<string> => {
        const served = await services().serve(`${driver},size=${size},seed=${seed}`);
        return present === undefined ? served : services().proxy(served, { present, segmentation: 'raw' });
      };
      const options = { timeout: PATIENCE, ...capabilities(limit) };
      const [source, destination] = [
        new TestClient(await device(3), options),
        new TestClient(await device(4), options),
      ];
      const bytes = parseSize(size, (why) => new Error(why));
      const before = source.bar(bytes);
      const pieces = source.save();
      if (source.device.protocol === 'v2') {
        expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThanOrEqual(limit);
      }
      destination.restore(pieces);
      expect(destination.bar(bytes)).toBeBytes(before);
      source.close();
      destination.close();
    },
  );
});
