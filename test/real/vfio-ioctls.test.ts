import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import type { DeviceReport } from '../../src/interpose/serve/report.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { because, lacksForRun } from '../support/host.ts';
import { patient } from '../support/patience.ts';
import { useShimRuns } from '../support/shim-run.ts';
import { missingClient, vfioIoctlsClient } from '../support/vfio-ioctls.ts';
import { useTestBed } from './bed.ts';

const TIMEOUT = patient(120_000);
const SIZE = 65_536;
const reason = lacksForRun() ?? missingClient;

/** By its group and a container, or by its own node and /dev/iommu. */
type How = 'group' | 'cdev';

/** What the client writes to BAR0, which becomes the device's memory. */
const words = Uint32Array.from({ length: SIZE / 4 }, (_, n) => Math.imul(n, 2_654_435_761) >>> 0);
const MEMORY = createHash('sha256').update(new Uint8Array(words.buffer)).digest('hex');

describe.skipIf(reason !== undefined)(`rust-vmm's vfio-ioctls, as Cloud Hypervisor uses it${because(reason)}`, () => {
  const start = useShimRuns();
  const bed = useTestBed();
  let client = '';
  beforeAll(() => {
    requireCli();
    client = vfioIoctlsClient();
  }, TIMEOUT);

  async function run(
    how: How,
    mode: 'save' | 'restore',
    driver: string,
  ): Promise<{ said: string[]; report: DeviceReport }> {
    const device = `${driver},size=${SIZE},dma=2000,dma-at=5G+64K`;
    const script = `exec "$0" ${how} ${mode} "$VFIO_SHIM_SYSFS/0000:90:00.0" "$1"`;
    const command = ['sh', '-c', script, client, bed().path('state')];
    const target = start(command, {
      devices: [device],
      options: ['--present', 'v2', ...(how === 'cdev' ? ['--iommufd'] : [])],
      json: true,
    });
    target.end();
    expect(await target.ended(TIMEOUT), target.describe()).toEqual({ code: 0, signal: null });
    const [report] = target.reports();
    if (report === undefined) throw new Error(target.describe());
    return { said: target.stdout.split('\n').filter((line) => line !== '' && !line.startsWith('{')), report };
  }

  it.each([
    ['qat', 'group', 7],
    ['mlx5', 'group', 7],
    ['pds', 'group', 3],
    ['vendor-v1', 'group', 5],
    ['qat', 'cdev', 7],
    ['xe', 'cdev', 3],
  ] as const)(
    'opens, uses, saves, restores and closes a %s by its %s',
    { timeout: TIMEOUT },
    async (driver, how, flags) => {
      const saved = await run(how, 'save', driver);
      const usual = ['capabilities [1, 5, 17, 16]', `migration flags ${flags}`]; // power management, MSI, MSI-X, PCI Express
      const bytes = statSync(bed().path('state')).size;
      const all = [...usual, '4 of MSI', '4 of MSI-X', 'written to by DMA', `saved ${bytes} bytes`, 'closed'];
      expect(saved.said).toEqual(all); // vfio-ioctls has nothing to log
      expect(saved.report).toMatchObject({ bytesOut: bytes, bytesIn: 0, sha256: MEMORY });
      const restored = await run(how, 'restore', driver);
      expect(restored.said).toEqual([...usual, 'restored', 'written to by DMA', 'closed']);
      expect(restored.report).toMatchObject({ bytesOut: 0, bytesIn: bytes, sha256: MEMORY });
    },
  );
});
