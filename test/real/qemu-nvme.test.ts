import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { requireCli } from '../../tools/vmm/cli.ts';
import { because, lacksCommand, lacksForRun, lacksMounts } from '../support/host.ts';
import { patient } from '../support/patience.ts';
import { useShimRuns } from '../support/shim-run.ts';
import { useTestBed } from './bed.ts';

const TIMEOUT = patient(60_000);
const reason = lacksForRun() ?? lacksMounts() ?? lacksCommand('qemu-img');

describe.skipIf(reason !== undefined)(`QEMU's own driver for NVMe (util/vfio-helpers.c)${because(reason)}`, () => {
  const start = useShimRuns();
  const bed = useTestBed();
  beforeAll(requireCli);

  it('opens an emulated device, maps its registers, which are no NVMe controller, and gives it up', async () => {
    const trace = bed().path('trace');
    const run = start(['qemu-img', 'info', 'nvme://0000:90:00.0/1'], {
      devices: ['spdk-v1,size=64K'],
      options: ['--mount-sysfs', '--trace', trace],
      json: true,
    });
    run.end();
    expect(await run.ended(TIMEOUT), run.describe()).toEqual({ code: 1, signal: null });
    // CAP.CSS, of BAR0 as it is mapped (block/nvme.c: nvme_init)
    expect(run.stderr).toContain("Could not open 'nvme://0000:90:00.0/1': Device doesn't support NVMe command set\n");
    const text = readFileSync(trace, 'utf8');
    const asked = [...text.matchAll(/ (VFIO_\w+|config\+0x\w+ (?:<-|->) 0x\w+|reset) = (\S+)/g)].map(
      ([, what = '', result]) => `${what} ${result}`,
    );
    expect(asked.filter((line) => / E[A-Z]+$/.test(line))).toEqual([]);
    const wanted = [
      'VFIO_GROUP_SET_CONTAINER 0',
      'VFIO_SET_IOMMU 0',
      'VFIO_IOMMU_GET_INFO 0', // without its capabilities
      'VFIO_IOMMU_GET_INFO 0',
      'VFIO_GROUP_GET_DEVICE_FD fd',
      'VFIO_DEVICE_GET_REGION_INFO 0',
      'config+0x4 <- 0x0006 2', // memory, and bus master
      'reset 0',
    ];
    let from = 0;
    for (const line of wanted) {
      const at = asked.indexOf(line, from);
      expect(at, `${line} of ${asked.join(', ')}`).toBeGreaterThanOrEqual(from);
      from = at + 1;
    }
  });
});
