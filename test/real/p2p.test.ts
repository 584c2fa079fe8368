import { expect, it } from 'vitest';
import { listen, migrateLive, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import { vfioStates } from '../../tools/vmm/events.ts';
import { imprint } from '../../tools/vmm/imprint.ts';
import { expectDevices, startPair } from '../../tools/vmm/pair.ts';
import { startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);

/** What the drivers of a VM were asked for, all of them in one order: a letter for the device, and its state. */
function asked({ child }: Vm): string[] {
  const lines = child.stderr.matchAll(/0000:9([01]):00\.0: the device is in (\w+)/g);
  return [...lines].map(([, device, state]) => `${device === '0' ? 'A' : 'B'} ${state}`);
}

describeWithQemus(['10.0'], 'several devices under QEMU 10.0', () => {
  const bed = useTestBed();
  const oldOnes: readonly DeviceOptions[] = [
    { driver: 'vendor-v1', size: '4M' },
    { driver: 'vendor-v1', size: '1M' },
  ];
  const oldAndNew: readonly DeviceOptions[] = [
    { driver: 'vendor-v1', size: '1M' },
    { driver: 'qat', size: '4M' },
  ];
  const without: ShimOptions = { qemu: '10.0', run: ['--present', 'v2'] };
  const withP2P: ShimOptions = { qemu: '10.0', run: ['--present', 'v2', '--offer-p2p'] };

  /** What each driver is asked for at the source: a v1 driver stops where one with P2P turns quiet. QEMU begins with a start. */
  const STATES: Readonly<Record<string, readonly string[]>> = {
    'vendor-v1': ['RUNNING', 'STOP', 'RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP'],
    qat: ['RUNNING', 'RUNNING_P2P', 'RUNNING', 'PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY', 'STOP'],
  };

  it.each([
    { title: 'two vendor-v1', devices: oldOnes },
    { title: 'vendor-v1 and qat', devices: oldAndNew },
  ])('with --offer-p2p $title migrate together', { timeout: TIMEOUT }, async ({ devices }) => {
    const pair = await startPair(bed(), devices, withP2P);
    const { source, destination } = pair;
    const marks = [await imprint(source, VFIO_SLOT), await imprint(source, VFIO_SLOT + 1)];
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    const { from, to } = await expectDevices(pair, marks);
    expect(new Set(to.map(({ sha256 }) => sha256)).size).toBe(2);
    expect(to.map(({ bytesIn }) => bytesIn)).toEqual(from.map(({ bytesOut }) => bytesOut));
    expect(from.map(({ states }) => states)).toEqual(devices.map(({ driver = '' }) => STATES[driver]));
    for (const [index, { bytesOut }] of from.entries()) {
      expect(vfioStates(source, index)).toEqual(['pre-copy', 'pre-copy-p2p', 'stop-copy', 'stop']);
      expect(bytesOut).toBeGreaterThan(1024 * 1024);
    }
  });

  // QEMU asks A and B to start, and B and A to stop
  const ONE_BY_ONE = {
    start: ['A STOP', 'B STOP', 'A RUNNING', 'B RUNNING'],
    load: ['A RESUMING', 'B RESUMING', 'A RUNNING', 'B RUNNING'],
  };
  const IN_A_ROW = {
    start: ['A STOP', 'B STOP', 'B RUNNING', 'A RUNNING'],
    load: ['A RESUMING', 'B RESUMING', 'B RUNNING', 'A RUNNING'],
  };

  it.each([
    { title: 'in a row', run: [], ...IN_A_ROW },
    { title: 'in a row in a round trip', run: ['--round-trip'], ...IN_A_ROW },
    { title: 'one by one with --p2p off', run: ['--p2p', 'off'], ...ONE_BY_ONE },
  ])('the drivers of two vendor-v1 start $title', { timeout: TIMEOUT }, async ({ run, start, load }) => {
    const pair = await startPair(bed(), oldOnes, {
      qemu: '10.0',
      run: ['--present', 'v2', '--offer-p2p', '-v', ...run],
    });
    const { source, destination } = pair;
    const marks = [await imprint(source, VFIO_SLOT), await imprint(source, VFIO_SLOT + 1)];
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    await expectDevices(pair, marks);
    const opened = ['A RUNNING', 'B RUNNING'];
    const down = ['A PRE_COPY', 'B PRE_COPY', 'B STOP_COPY', 'A STOP_COPY', 'A STOP', 'B STOP'];
    expect(asked(source)).toEqual([...opened, ...start, ...down]);
    const up = [...opened, ...load];
    expect(asked(destination).slice(0, up.length)).toEqual(up);
  });

  it.each([
    { title: 'two vendor-v1, without,', devices: oldOnes, options: without },
    { title: 'vendor-v1 and qat, without,', devices: oldAndNew, options: without },
    // a v2 driver's own flags are left as they are
    { title: 'two hisi, with --offer-p2p too,', devices: [{ driver: 'hisi' }, { driver: 'hisi' }], options: withP2P },
  ])('$title are refused', { timeout: TIMEOUT }, async ({ devices, options }) => {
    await expect(startShimmedVm(bed(), 'vm', devices, options)).rejects.toThrow(
      /vfio 0000:91:00\.0: Multiple VFIO devices migration is supported only if all of them support P2P migration$/,
    );
  });

  // pds has no pre-copy: the destination finds out when both devices have stopped
  it(
    'with --offer-p2p both go on where the destination refuses one, and migrate again',
    { timeout: TIMEOUT },
    async () => {
      const old: DeviceOptions = { driver: 'vendor-v1', size: '4M' };
      const late: DeviceOptions = { driver: 'pds', size: '1M' };
      const incoming = { ...withP2P, incoming: true };
      const [source, first] = await Promise.all([
        startShimmedVm(bed(), 'source', [old, late], withP2P),
        startShimmedVm(bed(), 'first', [old, { ...late, compat: 2 }], incoming),
      ]);
      await source.waitForFirmware();
      const marks = [await imprint(source, VFIO_SLOT), await imprint(source, VFIO_SLOT + 1)];
      await startMigration(source, await listen(first, bed().path('first.migration')), { returnPath: true });
      await waitForMigration(source, 'failed');
      await source.waitForStatus('running');
      await source.waitForTicks();
      expect((await first.waitForExit()).code).toBe(1);

      const second = await startShimmedVm(bed(), 'second', [old, late], incoming);
      await migrateLive(source, second, bed().path('second.migration'), { returnPath: true });
      const { from } = await expectDevices({ source, destination: second }, marks);
      for (const { states } of from) expect(states.filter((state) => state === 'STOP_COPY').length).toBe(2);
    },
  );
});

describeWithQemus(['7.2'], 'several devices under QEMU 7.2, which knows no P2P states', () => {
  const bed = useTestBed();
  const devices: readonly DeviceOptions[] = [
    { driver: 'qat', size: '4M' },
    { driver: 'qat', size: '1M' },
  ];

  it.each([
    {
      p2p: 'auto',
      down: [
        'A RUNNING',
        'B RUNNING',
        'A PRE_COPY',
        'B PRE_COPY',
        'A PRE_COPY_P2P',
        'B STOP_COPY',
        'A STOP_COPY',
        'A STOP',
        'B STOP',
      ],
      up: ['A RUNNING', 'B RUNNING', 'A RESUMING', 'B RESUMING', 'A RUNNING_P2P', 'B RUNNING', 'A RUNNING'],
    },
    {
      p2p: 'off',
      down: ['A RUNNING', 'B RUNNING', 'A PRE_COPY', 'B PRE_COPY', 'B STOP_COPY', 'A STOP_COPY', 'A STOP', 'B STOP'],
      up: ['A RUNNING', 'B RUNNING', 'A RESUMING', 'B RESUMING', 'A RUNNING', 'B RUNNING'],
    },
  ])('with --p2p $p2p', { timeout: TIMEOUT }, async ({ p2p, down, up }) => {
    const run = ['--present', 'v1', '-v', '--p2p', p2p];
    const pair = await startPair(bed(), devices, { qemu: '7.2', run });
    const { source, destination } = pair;
    const marks = [await imprint(source, VFIO_SLOT), await imprint(source, VFIO_SLOT + 1)];
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    await expectDevices(pair, marks);
    expect(asked(source)).toEqual(down);
    // QEMU stops the VM when it quits
    expect(asked(destination).slice(0, up.length)).toEqual(up);
  });
});
