import { existsSync, readdirSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { sysfsFiles } from '../../../src/interpose/process/sysfs-device.ts';
import { DRIVERS } from '../../../src/sim/drivers.ts';
import { barSize, barSizes, pciConfig } from '../../../src/sim/pci.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import { requireCli } from '../../../tools/vmm/cli.ts';
import { because, lacksCommand, lacksMounts, lacksNobody, NOBODY } from '../../support/host.ts';
import { useShimRuns, type RunOptions, type ShimRun } from '../../support/shim-run.ts';

const BUS = '/sys/bus/pci/devices';
const text = (value: string | Uint8Array | undefined): string => (typeof value === 'string' ? value : '');

describe('the files of a device in sysfs', () => {
  it.each(DRIVERS)('%s: say what its config space says', (driver) => {
    const spec = parseSpec(driver);
    const config = pciConfig(spec);
    const files = sysfsFiles('0000:90:00.0', config, barSizes(spec));
    const view = new DataView(config.buffer, config.byteOffset);
    expect(files['config']).toBeBytes(config);
    const numbers = ['vendor', 'device', 'subsystem_vendor', 'subsystem_device'].map((name) =>
      Number(text(files[name])),
    );
    expect(numbers).toEqual([0x00, 0x02, 0x2c, 0x2e].map((at) => view.getUint16(at, true)));
    expect((Number(text(files['class'])) << 8) | Number(text(files['revision']))).toBe(view.getInt32(0x08, true));
    const [first = '', ...others] = text(files['resource']).trimEnd().split('\n');
    const [begin, end, flags] = first.split(' ').map(Number);
    expect([begin, end]).toEqual([0, barSize(spec) - 1]);
    expect((flags ?? 0) & 0x200, 'memory').toBe(0x200);
    expect((flags ?? 0) & 0x10_0000, '64 bits').toBe((view.getUint32(0x10, true) & 4) === 0 ? 0 : 0x10_0000);
    const none = `0x${'0'.repeat(16)} 0x${'0'.repeat(16)} 0x${'0'.repeat(16)}`;
    const msix = '0x0000000000000000 0x0000000000000fff 0x0000000000040200';
    expect(others).toEqual([none, msix, ...Array.from({ length: 10 }, () => none)]);
  });

  it('are as the kernel writes them', () => {
    const files = sysfsFiles('0000:90:00.0', pciConfig(parseSpec('qat,size=1M')), { 0: 2 ** 20, 2: 4096 });
    expect({ ...files, config: undefined, resource: text(files['resource']).split('\n')[0] }).toEqual({
      vendor: '0x8086\n',
      device: '0x4941\n',
      subsystem_vendor: '0x8086\n',
      subsystem_device: '0x4941\n',
      class: '0x0b4000\n',
      revision: '0x01\n',
      resource: '0x0000000000000000 0x00000000000fffff 0x0000000000040200',
      modalias: 'pci:v00008086d00004941sv00008086sd00004941bc0Bsc40i00\n',
      uevent: [
        'DRIVER=vfio-pci',
        'PCI_CLASS=B4000',
        'PCI_ID=8086:4941',
        'PCI_SUBSYS_ID=8086:4941',
        'PCI_SLOT_NAME=0000:90:00.0',
        'MODALIAS=pci:v00008086d00004941sv00008086sd00004941bc0Bsc40i00\n',
      ].join('\n'),
      numa_node: '-1\n',
      irq: '0\n',
      driver_override: 'vfio-pci\n',
      reset_method: 'flr bus\n',
      config: undefined,
    });
  });

  it.each([
    ['flr', 'flr bus\n'],
    ['pm', 'pm bus\n'],
    ['bus', 'bus\n'],
  ])('say how a device with reset-method=%s can be reset', (method, expected) => {
    const config = pciConfig(parseSpec(`qat,reset-method=${method}`));
    expect(sysfsFiles('0000:90:00.0', config, {})['reset_method']).toBe(expected);
  });
});

/** The bytes that lspci prints in hex. */
function bytesOf(output: string): Buffer {
  const dump = output.split('\n').flatMap((line) => /^[0-9a-f]{2,3}: (.*)$/.exec(line)?.[1]?.split(' ') ?? []);
  return Buffer.from(dump.join(''), 'hex');
}

/** A host's own directory stays as it is. */
const hasOwn = existsSync('/dev/vfio') ? 'the host has /dev/vfio' : undefined;

describe(`/dev/vfio${because(hasOwn)}`, () => {
  const start = useShimRuns();
  beforeAll(requireCli);

  /** What a program finds there. */
  async function found(options: readonly string[], script: string): Promise<unknown> {
    const fs = `const { openSync, readdirSync, statSync } = require('node:fs');
      const attempt = (what) => { try { return what() } catch ({ code }) { return code } };`;
    const run = start([process.execPath, '-e', `${fs} console.log(JSON.stringify(${script}))`], {
      devices: ['qat', 'mlx5'],
      options,
    });
    run.end();
    expect(await run.ended(), run.describe()).toEqual({ code: 0, signal: null });
    return JSON.parse(run.stdout) as unknown;
  }

  const LISTED = `[
    readdirSync('/dev/vfio').sort(), readdirSync('/dev/vfio/'), attempt(() => readdirSync('/dev/vfio/devices').sort()),
    attempt(() => readdirSync('/dev/vfio/vfio')), attempt(() => openSync('/dev/vfio', 'r+')),
  ]`;

  it.skipIf(hasOwn)('is listed with --iommufd, and there is nothing else', async () => {
    const [all, again, own, file, both] = (await found(['--iommufd'], LISTED)) as [string[], string[], ...unknown[]];
    expect(all).toEqual(['9000', '9001', 'devices', 'vfio']);
    expect(again.toSorted()).toEqual(all);
    expect([own, both]).toEqual([['vfio0', 'vfio1'], 'EISDIR']);
    expect(file).toBe('ENOTDIR');
    const types = `['', '/devices', '/vfio', '/devices/vfio1'].map((name) => {
      const stat = statSync('/dev/vfio' + name);
      return [stat.isDirectory(), stat.isCharacterDevice()];
    })`;
    const [directory, device] = [
      [true, false],
      [false, true],
    ];
    expect(await found(['--iommufd'], types)).toEqual([directory, directory, device, device]);
  });

  const noListing = hasOwn ?? lacksMounts();
  it.skipIf(noListing)(`is listed with --mount-sysfs, without what is not there${because(noListing)}`, async () => {
    const [all, , own] = (await found(['--mount-sysfs'], LISTED)) as unknown[];
    expect(all).toEqual(['9000', '9001', 'vfio']);
    expect(own).toBe('ENOENT');
  });

  it.skipIf(hasOwn)('is not there to be listed otherwise', async () => {
    expect(await found([], `attempt(() => readdirSync('/dev/vfio'))`)).toBe('ENOENT');
  });
});

const noMounts = lacksMounts();
/** That the host has, and nobody here adds. */
const someModule = existsSync('/sys/module')
  ? (readdirSync('/sys/module').find((name) => !name.startsWith('vfio')) ?? '')
  : '';

describe(`run --mount-sysfs${because(noMounts)}`, () => {
  const start = useShimRuns();
  beforeAll(requireCli);

  async function run(command: readonly string[], options: RunOptions = {}): Promise<ShimRun> {
    const started = start(command, { options: ['--mount-sysfs'], ...options });
    started.end();
    await started.ended();
    expect(started.exit, started.describe()).toEqual({ code: 0, signal: null });
    return started;
  }

  it.skipIf(noMounts)('shows the devices on the bus to the VMM, and to nobody else', async () => {
    const before = readdirSync(BUS);
    const script = `
      const { readdirSync, readFileSync, readlinkSync, realpathSync } = require('node:fs');
      const found = readdirSync('${BUS}').filter((name) => !name.startsWith('.'));
      console.log(JSON.stringify(found.map((name) => [
        name,
        readFileSync('${BUS}/' + name + '/device', 'latin1').trim(),
        readlinkSync('${BUS}/' + name + '/driver').split('/').pop(),
        realpathSync('${BUS}/' + name + '/iommu_group').split('/').pop(),
        readdirSync('${BUS}/' + name + '/iommu_group/devices'),
      ])));`;
    const devices = ['qat', 'mlx5'];
    const { stdout } = await run([process.execPath, '-e', script], { devices });
    expect(JSON.parse(stdout)).toEqual([
      ['0000:90:00.0', '0x4941', 'vfio-pci', '9000', ['0000:90:00.0']],
      ['0000:91:00.0', '0x101e', 'vfio-pci', '9001', ['0000:91:00.0']],
    ]);
    expect(readdirSync(BUS)).toEqual(before);
  });

  it.skipIf(noMounts)('adds a driver, modules and groups to those of the host, and hides none', async () => {
    const directories = ['/sys/bus/pci/drivers', '/sys/module', '/sys/kernel/iommu_groups'].filter(existsSync);
    const seen = directories.map((path) => readdirSync(path).toSorted());
    const script = `
      const { existsSync, readdirSync, readFileSync, realpathSync } = require('node:fs');
      const shown = (path) => readdirSync(path).filter((name) => !name.startsWith('.')).sort();
      console.log(JSON.stringify([
        ${JSON.stringify(directories)}.map(shown),
        shown('/sys/bus/pci/drivers/vfio-pci').filter((name) => /^0000:9[01]/.test(name)),
        ${JSON.stringify(directories)}.flatMap((path) => shown(path).filter((name) => !existsSync(path + '/' + name))),
        realpathSync('/sys/module/' + ${JSON.stringify(someModule)}),
        existsSync('/sys/kernel/iommu_groups') ? readFileSync('/sys/kernel/iommu_groups/9001/devices/0000:91:00.0/device', 'latin1') : '0x101e\\n',
      ]));`;
    const { stdout } = await run([process.execPath, '-e', script], { devices: ['qat', 'mlx5'] });
    const [shown, ofDriver, dangling, module, device] = JSON.parse(stdout) as [string[][], ...unknown[]];
    const added = [['vfio-pci'], ['vfio', 'vfio_iommu_type1', 'vfio_pci'], ['9000', '9001']];
    expect(shown).toEqual(seen.map((names, n) => [...new Set([...names, ...(added[n] ?? [])])].toSorted()));
    if (seen[0]?.includes('vfio-pci') !== true) expect(ofDriver).toEqual(['0000:90:00.0', '0000:91:00.0']);
    expect(dangling).toEqual([]);
    expect(module).toBe(`/sys/module/.kernel/${someModule}`);
    expect(device).toBe('0x101e\n');
    expect(directories.map((path) => readdirSync(path).toSorted())).toEqual(seen);
  });

  const noLspci = noMounts ?? lacksCommand('lspci');
  it.skipIf(noLspci)(`lspci takes them for devices of the host${because(noLspci)}`, async () => {
    const { stdout } = await run(['lspci', '-D', '-n', '-k', '-v', '-x'], { devices: ['qat,size=1M'] });
    expect(stdout).toMatch(/^0000:90:00\.0 0b40: 8086:4941 \(rev 01\)$/m);
    expect(stdout).toMatch(/\bIOMMU group 9000$/m);
    expect(stdout).toMatch(/^\tMemory at <unassigned> \(32-bit, non-prefetchable\) \[disabled\] \[size=1M\]$/m);
    expect(stdout).toMatch(/^\tMemory at <unassigned> \(32-bit, non-prefetchable\) \[disabled\] \[size=4K\]$/m);
    const capabilities = Array.from(stdout.matchAll(/^\tCapabilities: \[(\w+)\] ([\w ]+)/gm), ([, at, is]) => [at, is]);
    expect(capabilities).toEqual([
      ['40', 'Power Management version 3'],
      ['48', 'MSI'],
      ['60', 'MSI'],
      ['6c', 'Express Endpoint'],
    ]);
    expect(stdout).toMatch(/^\tKernel driver in use: vfio-pci$/m);
    const dump = bytesOf(stdout);
    expect(dump).toHaveLength(64);
    expect(dump).toBeBytes(pciConfig(parseSpec('qat,size=1M')).subarray(0, 64));
  });

  it.skipIf(noLspci)(`lspci reads all capabilities, extended ones too${because(noLspci)}`, async () => {
    const devices = ['qat,config=4096', 'qat,reset-method=pm'];
    const { stdout } = await run(['lspci', '-D', '-n', '-vv', '-xxxx'], { devices });
    const [first = '', second = ''] = stdout.split(/^(?=0000:)/m);
    for (const line of [
      /Status: Cap\+/,
      /Status: D0 NoSoftRst\+ PME-Enable-/,
      /MSI: Enable- Count=1\/4 Maskable\+ 64bit\+/,
      /MSI-X: Enable- Count=4 Masked-\n\t+Vector table: BAR=2 offset=00000000\n\t+PBA: BAR=2 offset=00000800/,
      /Express \(v2\) Endpoint/,
      /FLReset\+/,
      /LnkSta:\tSpeed 8GT\/s.*, Width x4/,
      /\[100 v1\] Device Serial Number 00-80-86-ff-ff-00-49-41/,
    ])
      expect(first).toMatch(line);
    expect(bytesOf(first)).toBeBytes(pciConfig(parseSpec('qat,config=4096')));
    expect(second).toMatch(/NoSoftRst-/);
    expect(second).toMatch(/FLReset- SlotPowerLimit/);
    expect(second).not.toMatch(/Serial Number/);
    expect(bytesOf(second)).toBeBytes(pciConfig(parseSpec('qat,reset-method=pm')));
  });

  const noNobody = lacksNobody();
  it.skipIf(noNobody)(`says what it takes, where it may not${because(noNobody)}`, async () => {
    const target = start(['true'], { devices: ['qat'], options: ['--mount-sysfs'], prefix: NOBODY });
    await target.ended();
    expect(target.exit).toEqual({ code: 1, signal: null });
    expect(target.stderr).toMatch(
      /^vfio-shim: sysfsdev .*\nvfio-shim: --mount-sysfs: [^\n]*; it takes CAP_SYS_ADMIN, as `unshare -rm` gives it \[ERR_SYSCALL, EPERM\]\n$/,
    );
  });
});
