import { describe, expect, it } from 'vitest';
import { parseSize } from '../../src/sim/size.ts';
import { FULL, inShort } from '../support/runs.ts';
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

/** More than a number of 31 bits counts, and a little, so that no buffer ends with it. */
const LARGE = '2052M';
const LARGE_PATIENCE = patient(600_000);

describe.skipIf(!FULL)(`a state of ${LARGE}`, () => {
  it.each([
    ['qat', 'v1'],
    ['vendor-v1', 'v2'],
  ] as const)(
    'of %s passes through a proxy to a client of %s, and from it through another into a device, byte for byte',
    { timeout: LARGE_PATIENCE },
    async (driver, present) => {
      const at = async (seed: number): Promise<string> =>
        services().proxy(await services().serve(`${driver},size=${LARGE},seed=${seed}`, LARGE_PATIENCE), {
          present,
          dataSection: MIB,
          timeout: LARGE_PATIENCE,
        });
      const options = { timeout: LARGE_PATIENCE, ...capabilities(MIB) };
      const source = new TestClient(await at(3), options);
      const destination = new TestClient(await at(4), options);
      const size = parseSize(LARGE, (why) => new Error(why));
      const [ours, theirs] = [new Uint8Array(MIB), new Uint8Array(MIB)];
      const differing = (): number => {
        let found = 0;
        for (let done = 0; done < size; done += MIB) {
          source.readBar(done, ours);
          destination.readBar(done, theirs);
          if (Buffer.compare(ours, theirs) !== 0) found += 1;
        }
        return found;
      };
      expect(differing()).toBe(size / MIB); // before, no part of it is the same
      const restore = destination.restoring();
      let bytes = 0;
      source.saveTo((piece) => {
        bytes += piece.length;
        restore.load(piece);
      });
      restore.complete();
      expect(bytes).toBeGreaterThan(size);
      expect(differing()).toBe(0);
      source.close();
      destination.close();
    },
  );
});

describe('a state of 0 bytes', () => {
  const protocols = ['v1', 'v2'] as const;
  const routes = protocols.flatMap((client) =>
    protocols.flatMap((source) => protocols.map((destination) => [client, source, destination] as const)),
  );

  it.each(routes)('passes through proxies to a client of %s, from a server of %s to one of %s', async (...route) => {
    const [client, from, to] = route;
    const behind = async (server: string): Promise<TestClient> =>
      new TestClient(await services().proxy(server, { present: client }));
    const [source, destination] = [
      await behind(await services().serveEmpty(from)),
      await behind(await services().serveEmpty(to)),
    ];
    const counts = (of: TestClient): number[] => [...new Uint32Array(of.bar(12).buffer)]; // saved, loaded, bytes that came
    const pieces = source.save();
    expect(pieces.reduce((sum, { length }) => sum + length, 0)).toBe(0);
    destination.restore(pieces);
    expect(counts(source)).toEqual([1, 0, 0]);
    expect(counts(destination)).toEqual([0, 1, 0]);
    for (const each of [source, destination]) each.close();
  });
});
