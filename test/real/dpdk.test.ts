import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ci } from '../../tools/vmm/binaries.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { missingCompiler } from '../support/compiler.ts';
import { DPDK, dpdkProgram, findDpdk, type DpdkSuite } from '../support/dpdk.ts';
import { because, lacksCommand, lacksForRun, lacksMounts } from '../support/host.ts';
import { patient } from '../support/patience.ts';
import { useTestBed } from './bed.ts';
import { useShimRuns, type ShimRun } from '../support/shim-run.ts';

const TIMEOUT = patient(60_000);
const SIZE = 65_536;
const IOVA = 0x1000_0000;
/** What EAL is told of interrupts, by default nothing, and what it makes of it: RTE_INTR_HANDLE_VFIO_LEGACY and its like (rte_interrupts.h). */
const MODES: readonly (readonly [string, { readonly options: readonly string[]; readonly type: number }])[] = [
  ['MSI-X', { options: [], type: 5 }],
  ['MSI', { options: ['--vfio-intr=msi'], type: 4 }],
  ['INTx', { options: ['--vfio-intr=legacy'], type: 3 }],
];
const lacking = lacksForRun() ?? lacksMounts();

/** What the program writes to BAR0, which becomes the device's memory. */
function pattern(): Uint8Array {
  const words = Uint32Array.from({ length: SIZE / 4 }, (_, n) => Math.imul(n, 2_654_435_761) >>> 0);
  return new Uint8Array(words.buffer);
}

describe.each(Object.keys(DPDK) as DpdkSuite[])('DPDK of %s', (suite) => {
  const found = findDpdk(suite);
  const missing = 'missing' in found ? found.missing : missingCompiler();
  const reason = lacking ?? (ci ? undefined : missing);
  const start = useShimRuns();
  const bed = useTestBed();

  function root(): string {
    requireCli();
    if ('missing' in found) throw new Error(found.missing);
    return found.root;
  }

  function run(command: readonly string[], devices: readonly string[], options: readonly string[] = []): ShimRun {
    const env = { RUNTIME_DIRECTORY: bed().path('') }; // it makes a directory there
    const started = start(command, { devices, options: ['--mount-sysfs', ...options], json: true, env });
    started.end();
    return started;
  }

  // without hugepages, and without files that other programs of DPDK's would find
  const EAL = ['--no-huge', '--no-shconf', '--no-telemetry', '-m', '16', '--log-level=*:info'];

  it.skipIf(reason !== undefined).each(MODES)(
    `finds an emulated device on the bus, maps it, has its memory written to, is interrupted (%s), and frees all of it, twice${because(reason)}`,
    { timeout: TIMEOUT },
    async (_, { options, type }) => {
      const device = `qat,size=${SIZE},dma=2000,dma-at=${IOVA}+${SIZE},irq=dma`;
      const args = [String(SIZE), String(IOVA), '--', ...EAL, ...options];
      const target = run([dpdkProgram(root()), ...args], [device]);
      const end = await target.ended(TIMEOUT);
      expect(end, target.describe()).toEqual({ code: 0, signal: null });
      const said = target.stdout.split('\n').filter((line) => line !== '' && !line.startsWith('{'));
      expect(said).toEqual([
        `probed 0000:90:00.0, interrupts of type ${type}`,
        'written to by DMA, and interrupted',
        `probed 0000:90:00.0, interrupts of type ${type}`,
        'cleaned up',
      ]);
      expect(target.stderr).not.toMatch(/\berror\b|cannot|fail/i);
      expect(target.stderr).toContain('Using IOMMU type 1 (Type 1)');
      const [report] = target.reports();
      expect(report?.sha256).toBe(createHash('sha256').update(pattern()).digest('hex'));
    },
  );

  const noTools = reason ?? lacksCommand('lspci') ?? lacksCommand('python3');
  it.skipIf(noTools !== undefined)(`dpdk-devbind.py lists it with its driver${because(noTools)}`, async () => {
    const script = ['bin', 'sbin'].map((name) => join(root(), 'usr', name, 'dpdk-devbind.py')).find(existsSync) ?? '';
    const target = run(['python3', script, '--status'], ['mlx5,size=64K']);
    expect(await target.ended(TIMEOUT), target.describe()).toEqual({ code: 0, signal: null });
    expect(target.stdout).toMatch(
      /^Network devices using DPDK-compatible driver\n=+\n0000:90:00\.0 '[^']*' drv=vfio-pci unused=\S*$/m,
    );
  });
});
