import { expect, it } from 'vitest';
import { compiled, describeRunsWithCompiler } from '../../support/compiler.ts';
import { useShimRuns } from '../../support/shim-run.ts';

/** google/crosvm, devices/src/vfio.rs and devices/src/pci/vfio_pci.rs. */
describeRunsWithCompiler("crosvm's calls", () => {
  const start = useShimRuns();

  it.each([
    ['qat,size=64K', 'auto', 65_536],
    ['mlx5,size=512M', 'v2', 512 * 1024 * 1024], // a BAR of 64 bits
    ['vendor-v1,size=1M', 'auto', 1024 * 1024], // a region with capabilities
  ])('find what a %s has, presented as %s, and use it', async (device, present, size) => {
    const script = 'exec "$0" "$VFIO_SHIM_SYSFS/0000:90:00.0"';
    const run = start(['sh', '-c', script, compiled('crosvm')], {
      devices: [device],
      options: ['--present', present],
      json: true,
    });
    run.end();
    expect(await run.ended(60_000), run.describe()).toEqual({ code: 0, signal: null });
    expect(run.stdout.split('\n').filter((line) => line !== '' && !line.startsWith('{'))).toEqual([
      'no region 8: Invalid argument', // VGA
      `BAR0: ${size} bytes, mapped`,
      'BAR2: 4096 bytes',
      '1 of INTx',
      '4 of MSI',
      '4 of MSI-X',
    ]);
    expect(run.reports()).toMatchObject([{ states: ['RUNNING'], bytesOut: 0, bytesIn: 0 }]);
  });
});
