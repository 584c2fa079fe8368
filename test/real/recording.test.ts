import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { judgeRecording } from '../../src/check/index.ts';
import type { AccessLine } from '../../src/recording/format.ts';
import { readRecording } from '../../src/recording/reader.ts';
import { migrateLive } from '../../src/vmm/migration.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { quitAndReport, serving, startShimmedVm } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(120_000);

/** What QEMU writes to device_state, or asks for. */
function statesOf(accesses: readonly AccessLine[]): string[] {
  return accesses.flatMap(({ call }) => {
    if (call.call === 'set-state' && call.protocol === 'v2') return call.state;
    const isWrite = call.call === 'register' && call.protocol === 'v1' && call.access === 'write';
    return isWrite && call.register === 'device_state' ? (call.state ?? []) : [];
  });
}

describeWithQemus(['7.2', '10.0'], 'run --record', () => {
  const bed = useTestBed();

  it.each([
    ['7.2', 'qat', ['RUNNING', 'PRE_COPY', 'STOP_COPY'], 'RESUMING'],
    ['10.0', 'vendor-v1', ['PRE_COPY', 'STOP_COPY', 'STOP'], 'RESUMING'],
  ] as const)('QEMU %s on %s: a live migration', { timeout: TIMEOUT }, async (qemu, driver, saving, loading) => {
    const start = (name: string, incoming: boolean) =>
      startShimmedVm(bed(), name, [{ driver, size: '4M', seed: incoming ? 0 : 7 }], {
        qemu,
        incoming,
        run: ['--record', bed().path(`${name}.jsonl`)],
      });
    const [source, destination] = [await start('source', false), await start('destination', true)];
    await source.waitForFirmware();
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    const reports = [await quitAndReport(source), await quitAndReport(destination)];
    expect(reports[0]?.sha256).toBe(reports[1]?.sha256);
    for (const vm of [source, destination]) {
      const isGone = (): true | undefined => (serving(bed(), 'keeper-main', vm).length === 0 ? true : undefined);
      await poll(isGone, 20_000, () => `the keeper of ${vm.name} ends`);
    }
    const [ours = [], theirs = []] = ['source', 'destination'].map((name) => {
      const lines = [...readRecording([readFileSync(bed().path(`${name}.jsonl`))])];
      expect(lines.at(-1)).toMatchObject({ kind: 'end', why: 'ended' });
      return lines.filter((line) => line.kind === 'access');
    });

    for (const name of ['source', 'destination']) {
      const { findings, accesses, isWhole } = judgeRecording([readFileSync(bed().path(`${name}.jsonl`))]);
      expect(findings.map(({ id, line, why }) => `${name}: ${id}, line ${line}: ${why}`)).toEqual([]);
      expect([accesses > 10, isWhole]).toEqual([true, true]);
    }
    for (const [n, accesses] of [ours, theirs].entries()) {
      const report = reports[n];
      const bytes = (direction: 'out' | 'in'): number =>
        accesses.reduce((sum, { moved }) => sum + (moved?.direction === direction ? moved.bytes : 0), 0);
      expect([bytes('out'), bytes('in')]).toEqual([report?.bytesOut, report?.bytesIn]);
      expect(accesses.filter(({ device }) => device !== undefined).length).toBe(report?.trappedCalls);
    }
    // what the source gave is what the destination took, buffer by buffer
    const hashes = (accesses: readonly AccessLine[]): string[] => accesses.flatMap(({ data }) => data?.sha256 ?? []);
    if (qemu === '7.2') expect(hashes(theirs)).toEqual(hashes(ours));
    expect(hashes(ours).length).toBeGreaterThan(0);
    expect(statesOf(ours).slice(0, saving.length)).toEqual(saving);
    expect(statesOf(theirs)).toContain(loading);
    const asked = ours.flatMap(({ call, driver = [] }) => (driver.length > 0 ? [call.call] : []));
    expect(asked.length).toBeGreaterThan(3);
  });
});
