import { expect, it } from 'vitest';
import { migrateLive } from '../../src/vmm/migration.ts';
import { imprint } from '../../tools/vmm/imprint.ts';
import { expectDevice, startPair } from '../../tools/vmm/pair.ts';
import type { ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const native = { '7.2': ['--present', 'v1'], '10.0': ['--present', 'v2'] } as const;

/** Drivers as they were published, with habits that no VMM of ours has chosen, by their SIZE. */
describeWithQemus(['7.2', '10.0'], 'drivers with the habits of real ones, live', () => {
  const bed = useTestBed();

  it.each<[driver: string, size: string, qemu: '7.2' | '10.0', run: readonly string[]]>([
    // new drivers, an old VMM
    ['qat,real=1', '3942', '7.2', []],
    ['hisi,real=1', '136', '7.2', []],
    ['pds,real=1', '65504', '7.2', []],
    ['virtio', '1M', '7.2', []],
    ['xe,unready=2', '1M', '7.2', []],
    // old drivers, a new VMM; hisi-v1 has to be given its transactions as they came
    ['hisi-v1', '64K', '10.0', ['--segmentation', 'framed']],
    ['mlx5-v1', '1M', '10.0', []],
    ['nvidia-v1', '1M', '10.0', []],
    ['spdk-v1', '64K', '10.0', []],
    // the VMM that they were made for
    ['virtio', '1M', '10.0', []],
    ['xe,unready=2', '1M', '10.0', []],
    ['hisi-v1', '64K', '7.2', []],
    ['mlx5-v1', '64K', '7.2', []],
    ['nvidia-v1', '1M', '7.2', []],
    ['spdk-v1', '64K', '7.2', []],
  ])('%s of %s, QEMU %s', { timeout: patient(90_000) }, async (driver, size, qemu, run) => {
    const options: ShimOptions = { qemu, machine: 'pc', run: [...native[qemu], ...run] };
    const bytes = Number(size) || undefined;
    const pair = await startPair(bed(), [{ driver, size }], options);
    const mark = await imprint(pair.source, undefined, bytes);
    await migrateLive(pair.source, pair.destination, bed().path('migration'), { returnPath: true });
    const { from, to } = await expectDevice(pair, mark);
    expect(to.bytesIn).toBe(from.bytesOut);
    expect(from.bytesOut).toBeGreaterThan(0);
  });
});
