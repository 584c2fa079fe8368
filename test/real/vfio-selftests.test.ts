import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { requireCli } from '../../tools/vmm/cli.ts';
import { because, lacksForRun, lacksMounts } from '../support/host.ts';
import { patient } from '../support/patience.ts';
import { useShimRuns } from '../support/shim-run.ts';

const TIMEOUT = patient(120_000);
const SCRIPT = fileURLToPath(new URL('../../scripts/vfio-selftests.mjs', import.meta.url));
const DEVICES = ['0000:90:00.0', '0000:91:00.0', '0000:92:00.0'];

const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT, '--cached'], { encoding: 'utf8' });
const home = stdout.trim();
/** They are 160 MB to fetch: no test does that. */
const lacking = lacksForRun() ?? lacksMounts() ?? (status === 0 ? undefined : stderr.trim());
const version = lacking === undefined ? readFileSync(join(home, 'VERSION'), 'utf8').trim() : undefined;

/** Of the Test Anything Protocol: what came of each test, and why it was skipped. */
interface Result {
  readonly name: string;
  readonly ok: boolean;
  readonly skipped: string | undefined;
}

function resultsIn(output: string): Result[] {
  return [...output.matchAll(/^(not )?ok \d+ (\S+)(?: # SKIP (.*))?$/gm)].map(([, not, name = '', skipped]) => ({
    name,
    ok: not === undefined,
    skipped,
  }));
}

/** The host has no huge pages. */
const ALLOWED = /^mmap\(\) failed: Cannot allocate memory \(12\)$/;

/** The tests of programs that a device of no matter which kind is enough for, and how many of each have to pass. */
const PROGRAMS: Readonly<Record<string, { devices: readonly string[]; passed: number }>> = {
  vfio_pci_device_test: { devices: DEVICES.slice(0, 1), passed: 5 },
  vfio_iommufd_setup_test: { devices: DEVICES.slice(0, 1), passed: 6 },
  vfio_dma_mapping_test: { devices: DEVICES.slice(0, 1), passed: 20 },
  vfio_dma_mapping_mmio_test: { devices: DEVICES.slice(0, 1), passed: 15 },
  vfio_pci_device_init_perf_test: { devices: DEVICES, passed: 5 },
};
/** Those that end without a test on such a device: one is for devices that they have drivers for, one for PFs. */
const NOT_FOR_IT = ['vfio_pci_driver_test', 'vfio_pci_sriov_uapi_test'];
const SKIPPED = 4; // kselftest.h: KSFT_SKIP

describe.skipIf(lacking !== undefined)(
  `Linux's VFIO selftests${because(lacking ?? `those of ${version ?? ''}`)}`,
  () => {
    const start = useShimRuns();

    async function run(program: string, devices: readonly string[]): Promise<{ output: string; code: number | null }> {
      requireCli();
      const specs = devices.map(() => 'qat,size=64K,kernel=7.1');
      const target = start([join(home, program), ...devices], {
        devices: specs,
        options: ['--mount-sysfs', '--iommufd'],
      });
      target.end();
      const { code } = await target.ended(TIMEOUT);
      return { output: `${target.stdout}${target.stderr}`, code };
    }

    it.each(Object.entries(PROGRAMS))('%s', { timeout: TIMEOUT }, async (program, { devices, passed }) => {
      const { output } = await run(program, devices);
      const results = resultsIn(output);
      expect(
        results.filter(({ ok }) => !ok),
        output,
      ).toEqual([]);
      const skipped = results.flatMap(({ skipped: why }) => why ?? []);
      expect(skipped.filter((why) => !ALLOWED.test(why))).toEqual([]);
      expect(results.filter(({ ok, skipped: why }) => ok && why === undefined).length, output).toBeGreaterThanOrEqual(
        passed,
      );
    });

    it.each(NOT_FOR_IT)('%s is for other devices', { timeout: TIMEOUT }, async (program) => {
      const { output, code } = await run(program, DEVICES.slice(0, 1));
      expect(code, output).toBe(SKIPPED);
    });

    it('are all of these', () => {
      const programs = readdirSync(home).filter((name) => name.endsWith('_test'));
      expect(programs.toSorted()).toEqual([...Object.keys(PROGRAMS), ...NOT_FOR_IT].toSorted());
    });
  },
);
