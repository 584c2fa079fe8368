import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { migrateLive } from '../../src/vmm/migration.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { quitAndReport, serving, startShimmedVm, type DeviceOptions } from '../../tools/vmm/shim.ts';
import { FAILED, OK, runCli } from '../support/cli-run.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(180_000);

describeWithQemus(['7.2'], 'a recording of QEMU 7.2', () => {
  const bed = useTestBed();

  /** Migrates a device live, both ends recorded under this name, and returns what the destination's memory has become. */
  async function migrated(name: string, from: DeviceOptions): Promise<string | null | undefined> {
    const start = (end: string, device: DeviceOptions, incoming: boolean) =>
      startShimmedVm(bed(), `${name}-${end}`, [device], {
        qemu: '7.2',
        incoming,
        run: ['--record', bed().path(`${name}-${end}.jsonl`), '--record-data'],
      });
    const source = await start('source', from, false);
    const destination = await start('destination', { driver: 'qat', size: '4M', seed: 0 }, true);
    await source.waitForFirmware();
    await migrateLive(source, destination, bed().path(`${name}-migration`), { returnPath: true });
    await quitAndReport(source);
    const report = await quitAndReport(destination);
    for (const vm of [source, destination]) {
      const isGone = (): true | undefined => (serving(bed(), 'keeper-main', vm).length === 0 ? true : undefined);
      await poll(isGone, 20_000, () => `the keeper of ${vm.name} ends`);
    }
    return report.sha256;
  }

  it('replays on the driver that it is of, and says where another one differs', { timeout: TIMEOUT }, async () => {
    await migrated('a', { driver: 'qat', size: '4M', seed: 7 });
    const replay = (end: string, device: string) =>
      runCli(['replay', bed().path(`a-${end}.jsonl`), '--device', device, '--json']);
    const same = [await replay('source', 'sim:qat,size=4M,seed=7'), await replay('destination', 'sim:qat,size=4M')];
    expect(same.map(({ exit }) => exit)).toEqual([OK, OK]);
    const others = [await replay('source', 'sim:hisi,size=4M,seed=7'), await replay('destination', 'sim:hisi,size=4M')];
    expect(others.map(({ exit }) => exit)).toEqual([FAILED, FAILED]);
    expect(others.map(({ stdout }) => JSON.parse(stdout) as unknown)).toMatchObject([
      { devices: [{ differences: [{ aspect: 'contents' }] }] },
      { devices: [{ differences: [{ aspect: 'errno', recorded: 'success', replayed: 'EINVAL' }] }] },
    ]);
  });

  it('is played to another QEMU 7.2, whose destination has the same bytes', { timeout: TIMEOUT }, async () => {
    const recorded = await migrated('a', { driver: 'qat', size: '4M', seed: 7 });
    const played = await migrated('b', { spec: `recording:${bed().path('a-source.jsonl')}` });
    expect(played).toBe(recorded);
    const data = (name: string): Uint8Array => readFileSync(bed().path(`${name}.jsonl.data`));
    for (const name of ['b-source', 'b-destination', 'a-destination']) expect(data(name)).toBeBytes(data('a-source'));
  });
});
