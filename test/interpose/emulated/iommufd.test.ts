import { expect, it } from 'vitest';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { compiled, describeRunsWithCompiler } from '../../support/compiler.ts';
import { useShimRuns, type ShimRun } from '../../support/shim-run.ts';

/** drivers/vfio/device_cdev.c and drivers/iommu/iommufd of Linux 6.12; IOMMU_IOAS_MAP_FILE is later. */
describeRunsWithCompiler('a device that is opened by its own node', () => {
  const start = useShimRuns();

  async function says(run: ShimRun, line: string): Promise<void> {
    const said = (): true | undefined => {
      if (run.exit !== undefined) throw new Error(`it has ended\n${run.describe()}`);
      return run.stdout.split('\n').includes(line) ? true : undefined;
    };
    await poll(said, 60_000, () => `${line}\n${run.describe()}`);
  }

  it('does its DMA where /dev/iommu says, whoever of its processes is killed meanwhile', async () => {
    const devices = ['qat,size=64K,kernel=7.1,dma=2000,dma-at=2M+256K'];
    const script = 'exec "$0" "$VFIO_SHIM_SYSFS/0000:90:00.0"';
    const run = start(['sh', '-c', script, compiled('iommufd')], { devices, options: ['--iommufd'] });
    await says(run, 'bound');
    killHard(await run.supervisor());
    run.write('go on\n');
    await says(run, 'written');
    killHard(await run.supervisor());
    run.write('go on\n');
    await says(run, 'mapped');
    killHard(await run.supervisor());
    await run.supervisor();
    run.write('go on\n');
    await says(run, 'closed');
    run.end('go on\n');
    expect(await run.ended(), run.describe()).toEqual({ code: 0, signal: null });
  });

  it('goes on when the keeper is killed', async () => {
    const devices = ['qat,size=64K,kernel=7.1,dma=2000,dma-at=2M+256K'];
    const script = 'exec "$0" "$VFIO_SHIM_SYSFS/0000:90:00.0"';
    const run = start(['sh', '-c', script, compiled('iommufd')], {
      devices,
      options: ['--iommufd'],
      leavesDirectory: true,
    });
    await says(run, 'bound');
    killHard(run.cast().keeper?.pid ?? Number.NaN);
    for (const line of ['written', 'mapped', 'closed']) {
      run.write('go on\n');
      await says(run, line);
    }
    run.end('go on\n');
    expect(await run.ended(), run.describe()).toEqual({ code: 0, signal: null });
  });
});
