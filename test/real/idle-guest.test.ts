import { expect, it } from 'vitest';
import { listen, setParameters, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import { vfioStates } from '../../tools/vmm/events.ts';
import { imprint } from '../../tools/vmm/imprint.ts';
import { expectDevice, startPair, type Pair } from '../../tools/vmm/pair.ts';
import type { DeviceOptions, ShimOptions } from '../../tools/vmm/shim.ts';
import { LONGEST_DOWNTIME, waitForLooks, withoutTimer } from '../../tools/vmm/switchover.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(120_000);
const SIZE = 16 * 1024 * 1024;

/** QEMU's default. In a downtime of 300 ms it allows 38 MiB, so nothing but QEMU's estimate holds the VM back. */
const OWN_BANDWIDTH = 128 * 1024 * 1024;

/**
 * So slow that the half mebibyte of the guest's memory takes some of the 100 ms in which QEMU measures. If all of it is sent
 * in the first of them, QEMU 10.0 knows no bandwidth yet, asks no device for what it has, and stops the VM at once.
 */
const FIRST_BANDWIDTH = 1024 * 1024;

describeWithQemus(['10.0'], 'QEMU 10.0 whose guest is idle, with QEMU’s own limits', () => {
  const bed = useTestBed();
  const device: DeviceOptions = { driver: 'qat', size: String(SIZE) };
  const native: ShimOptions = { qemu: '10.0', run: ['--present', 'v2'] };

  async function begin(): Promise<Pair> {
    const pair = await startPair(bed(), [device], native);
    const uri = await listen(pair.destination, bed().path('migration'));
    await startMigration(pair.source, uri, { parameters: { 'max-bandwidth': FIRST_BANDWIDTH }, returnPath: true });
    return pair;
  }

  it.each([
    ['avail-switchover-bandwidth', 2 ** 30],
    ['downtime-limit', LONGEST_DOWNTIME],
  ])('does not stop it for a device of 16 MiB, until %s says so', { timeout: TIMEOUT }, async (parameter, value) => {
    const pair = await begin();
    const { source } = pair;
    const sent = await waitForLooks(source);
    expect(sent).toMatchObject({ status: 'active', ram: { remaining: 0 } });
    await setParameters(source, { 'max-bandwidth': OWN_BANDWIDTH });
    const info = await waitForLooks(source, sent);
    expect(info).toMatchObject({ status: 'active', ram: { remaining: 0 } });
    expect(await source.status()).toBe('running');
    const mark = await imprint(source);
    const again = await withoutTimer(source);
    const later = await waitForLooks(source, info);
    expect(later.status).toBe('active');
    expect(vfioStates(source)).toEqual(['pre-copy']);

    await setParameters(source, { [parameter]: value });
    await waitForMigration(source, 'completed');
    await again(pair.destination);
    const { from } = await expectDevice(pair, mark);
    expect(from.bytesOut).toBeGreaterThan(SIZE);
  });
});
