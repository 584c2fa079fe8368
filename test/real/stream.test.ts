import { readFileSync, writeFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import type { StreamResult, TransferResult } from '../../src/cli/transfer-control.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { protocolOf, type QemuVersion } from '../../tools/vmm/binaries.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import { quitAndReport, quitAndReports, startShimmedVm, type DeviceOptions } from '../../tools/vmm/shim.ts';
import { OK, runCli } from '../support/cli-run.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);
const QAT: DeviceOptions = { driver: 'qat', size: '64K' };
const DEVICE = '0000:00:04.0';

async function json<T extends StreamResult | TransferResult>(args: readonly string[]): Promise<T> {
  const { exit, stdout, stderr } = await runCli([...args, '--json']);
  expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
  return JSON.parse(stdout) as T;
}

describeWithQemus(['7.2', '10.0'], 'vfio-shim stream and files of real QEMUs', () => {
  const bed = useTestBed();

  /** The SHA-256 of all that the guest sees of a device with this seed. */
  const memoryOf = async (seed: number): Promise<string | undefined> => {
    const saved = ['save', `sim:qat,size=64K,seed=${seed}`, bed().path(`seed${seed}`)];
    return (await json<TransferResult>(saved)).guestSha256;
  };

  it.each<[QemuVersion, string]>([
    ['7.2', 'v1'],
    ['10.0', 'v2'],
  ])(
    'a state that is extracted from a file of QEMU %s is the device, and another can be put in',
    { timeout: TIMEOUT },
    async (qemu, present) => {
      requireCli();
      const run = ['--present', present];
      const source = await startShimmedVm(bed(), 'source', [{ ...QAT, seed: 3 }], { qemu, run });
      await source.waitForFirmware();
      const file = bed().path('file');
      await migrateToFile(source, file);
      await source.quit();
      const state = bed().path('state');
      expect(await json(['stream', file, '--extract', DEVICE, '-o', state])).toMatchObject({
        identity: { bus: 'pci', id: '8086:4941', subsystem: '8086:4941' },
      });
      const restored = await json<TransferResult>(['restore', 'sim:qat,size=64K', state]);
      expect(restored.guestSha256).toBe(await memoryOf(3));

      const another = await memoryOf(4);
      const changed = bed().path('changed');
      await json(['stream', file, '--replace', `${DEVICE}=${bed().path('seed4')}`, '-o', changed]);
      const vm = await startShimmedVm(bed(), 'destination', [QAT], { qemu, run, incoming: true });
      await loadFromFile(vm, changed);
      await vm.waitForStatus('running');
      await vm.waitForTicks();
      const [report] = await quitAndReports(vm);
      expect(report?.sha256).toBe(another);
    },
  );

  /** A VM that has the machine and the devices of the recorded file. */
  const destinationFor52 = (name: string, qemu: QemuVersion): Promise<Vm> => {
    const devices = [QAT, { driver: 'mtty', size: '8' }];
    const run = ['--present', qemu === '7.2' ? 'v1' : 'v2'];
    return startShimmedVm(bed(), name, devices, { qemu, run, machine: 'pc-i440fx-5.2', incoming: true });
  };

  it.each<QemuVersion>(['7.2', '10.0'])(
    'a file of QEMU 5.2 is refused by QEMU %s, and loaded once it is converted',
    { timeout: TIMEOUT },
    async (qemu) => {
      requireCli();
      const file = bed().path('recorded');
      const vector = new URL('../vectors/qemu-5.2-qat64k-mtty.migration.gz', import.meta.url);
      writeFileSync(file, gunzipSync(readFileSync(vector)));
      const refusing = await destinationFor52('refusing', qemu);
      await refusing.qmp.execute('migrate-incoming', { uri: `exec:cat ${file}` });
      expect(await refusing.waitForExit()).toEqual({ code: 1, signal: null });
      expect(refusing.child.stderr).toContain('Missing section footer for 0000:00:04.0/vfio');

      const converted = bed().path('converted');
      expect(await json(['stream', file, '--to-layout', '6.2', '-o', converted])).toMatchObject({
        devices: ['0000:00:04.0', '0000:00:05.0'],
      });
      const vm = await destinationFor52('destination', qemu);
      await loadFromFile(vm, converted);
      await vm.waitForStatus('running');
      await vm.waitForTicks();
      const [qat, mtty] = await quitAndReports(vm);
      expect(qat).toMatchObject({ bytesIn: 65_568, sha256: await memoryOf(3) });
      expect(mtty).toMatchObject({ bytesIn: 60 });
    },
  );
});

describeWithQemus(['5.2', '7.2', 'newest'], 'vfio-shim stream and a file that QEMU 5.2 has just written', () => {
  const bed = useTestBed();
  const device: DeviceOptions = { driver: 'vendor-v1', size: '256K' };
  const machine = 'pc-i440fx-5.2';

  it('has a v1 device’s state, and converted it goes on in QEMU 7.2 and the newest', { timeout: TIMEOUT }, async () => {
    requireCli();
    const source = await startShimmedVm(bed(), 'source', [{ ...device, seed: 3 }], { qemu: '5.2', machine });
    await source.waitForFirmware();
    const mark = await imprint(source);
    const file = bed().path('file');
    await migrateToFile(source, file);
    const { sha256, bytesOut, buffersOut } = await quitAndReport(source);

    expect(await json(['stream', file])).toMatchObject({
      machine,
      devices: [
        { device: `${DEVICE}/vfio`, layout: '5.2', protocol: 'v1', dataBytes: bytesOut, dataRecords: buffersOut },
      ],
    });
    const state = bed().path('state');
    await json(['stream', file, '--extract', DEVICE, '-o', state]);
    const restored = await json<TransferResult>(['restore', 'sim:vendor-v1,size=256K,strict=1', state]);
    expect(restored.guestSha256).toBe(sha256);

    const converted = bed().path('converted');
    await json(['stream', file, '--to-layout', '6.2', '-o', converted]);
    for (const qemu of ['7.2', 'newest'] as const) {
      const run = ['--present', protocolOf(qemu)];
      const vm = await startShimmedVm(bed(), `to-${qemu}`, [device], { qemu, run, machine, incoming: true });
      await loadFromFile(vm, converted);
      await vm.waitForStatus('running');
      await vm.waitForTicks();
      expect(await mismatches(vm, mark)).toEqual([]);
      expect(await quitAndReport(vm)).toMatchObject({ sha256, bytesIn: bytesOut });
    }
  });
});
