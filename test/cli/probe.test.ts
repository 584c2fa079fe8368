import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseDevice } from '../../src/cli/device-name.ts';
import { outlook, type Capabilities } from '../../src/cli/outlook.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { FAILED, OK, runCli } from '../support/cli-run.ts';
import { because, lacksNobody, NOBODY } from '../support/host.ts';
import { thrownBy } from '../support/errno.ts';

describe('outlook', () => {
  const verdicts = (capabilities: Partial<Capabilities>): string =>
    outlook({ protocol: 'v2', migrationFlags: 7, dmaLogging: 'no', ...capabilities })
      .map(({ works }) => (works ? 'yes' : 'no'))
      .join(' ');

  it.each([
    // old VMM: natively, under run; new VMM: natively, under run; several devices
    [{ protocol: 'v1', migrationFlags: 0 }, 'yes yes no yes no'],
    [{ protocol: 'v2', migrationFlags: 7 }, 'no yes yes yes yes'],
    [{ protocol: 'v2', migrationFlags: 3 }, 'no yes yes yes yes'],
    [{ protocol: 'v2', migrationFlags: 5 }, 'no yes yes yes no'],
    [{ protocol: 'v2', migrationFlags: 1 }, 'no yes yes yes no'],
    [{ protocol: 'draft-2018', migrationFlags: 0 }, 'no yes no yes no'],
    [{ protocol: 'none', migrationFlags: 0 }, 'no no no no no'],
  ] as const)('of %j is %s', (capabilities, expected) => {
    expect(verdicts(capabilities)).toBe(expected);
  });

  it('says why', () => {
    const why = (capabilities: Partial<Capabilities>): string[] =>
      outlook({ protocol: 'v2', migrationFlags: 7, dmaLogging: 'no', ...capabilities }).map((each) => each.why);
    expect(why({})[0]).toBe('the VMM speaks v1 only, the driver v2 only');
    expect(why({})[1]).toMatch(/^v2 presented as v1; /);
    expect(why({ protocol: 'v1' })[2]).toBe('the VMM speaks v2 only, the driver v1 only');
    expect(why({ protocol: 'v1' })[4]).toBe('v1 has no P2P states; run --offer-p2p shows a full stop in their place');
    expect(why({})[2]).toMatch(/no DMA is logged/);
    expect(why({ dmaLogging: 'works' })[2]).toBe('uses the log of DMA');
    expect(why({ dmaLogging: 'offered, REPORT refused (EOPNOTSUPP)' })[2]).toMatch(/x-device-dirty-page-tracking=off/);
    expect(new Set(why({ protocol: 'none' }))).toEqual(new Set(['the driver does not support migration']));
  });
});

describe('parseDevice', () => {
  const UUID = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';

  it.each([
    ['sim:qat,size=64K', { kind: 'sim', spec: { driver: 'qat', size: 65_536 } }],
    ['vfio:/dev/vfio/26:0000:01:00.0', { kind: 'vfio', path: '/dev/vfio/26:0000:01:00.0' }],
    ['/dev/vfio/26:0000:01:00.0', { kind: 'vfio', path: '/dev/vfio/26:0000:01:00.0' }],
    ['vfio:/dev/vfio/noiommu-0:a', { kind: 'vfio', path: '/dev/vfio/noiommu-0:a' }],
    ['vfio:/dev/vfio/devices/vfio0', { kind: 'vfio', path: '/dev/vfio/devices/vfio0' }],
    ['/dev/vfio/devices/vfio0', { kind: 'vfio', path: '/dev/vfio/devices/vfio0' }],
    ['0000:01:00.0', { kind: 'host', name: { by: 'pci', name: '0000:01:00.0' } }],
    ['01:00.0', { kind: 'host', name: { by: 'pci', name: '0000:01:00.0' } }],
    ['10000:E1:1F.7', { kind: 'host', name: { by: 'pci', name: '10000:e1:1f.7' } }],
    ['vfio:01:00.0', { kind: 'host', name: { by: 'pci', name: '0000:01:00.0' } }],
    ['/dev/vfio/26', { kind: 'host', name: { by: 'group', name: '26' } }],
    ['vfio:/dev/vfio/noiommu-3', { kind: 'host', name: { by: 'group', name: 'noiommu-3' } }],
    [UUID.toUpperCase(), { kind: 'host', name: { by: 'mdev', name: UUID } }],
  ])('takes %s', (text, parts) => {
    expect(parseDevice(text)).toMatchObject({ text, ...parts });
  });

  it.each([
    '',
    'qat',
    'sim',
    'vfio:',
    'vfio',
    '/dev/vfio/vfio',
    '/dev/vfio/devices/',
    'vfio:/dev/vfio/26:',
    'vfio:26:a',
    'vfio:/dev/vfio/26:../a',
    '26',
    '01:00',
    '01:00.8',
    '1:00.0',
    '000:01:00.0',
    '01:00.0 ',
    UUID.slice(1),
    `${UUID}0`,
  ])('refuses %j', (text) => {
    expect(thrownBy(() => parseDevice(text)).code).toBe('ERR_ARGUMENT');
  });

  it('refuses a SPEC as parseSpec() does', () => {
    expect(thrownBy(() => parseDevice('sim:nothing')).code).toBe('ERR_SPEC');
  });
});

describe('vfio-shim probe', () => {
  let directory = '';
  beforeAll(() => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'vfio-shim-probe-'));
    chmodSync(directory, 0o755);
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  it('tells about a device that there is no memory for', async () => {
    const { exit, stdout } = await runCli(['probe', 'sim:qat,size=1T', '--json']);
    expect(exit).toEqual(OK);
    expect(JSON.parse(stdout)).toMatchObject({
      device: 'sim:qat,size=1T',
      driver: 'qat (simulated)',
      protocol: 'v2',
      migrationFlags: 7,
      flags: ['STOP_COPY', 'P2P', 'PRE_COPY'],
      state: 'RUNNING',
      stale: false,
      dataSize: 2 ** 40 + 32,
      regions: [
        { index: 0, size: 2 ** 40, flags: ['READ', 'WRITE', 'MMAP'], type: null },
        { index: 2, size: 4096, flags: ['READ', 'WRITE'], type: null },
        { index: 7, size: 256, flags: ['READ', 'WRITE'], type: null },
      ],
      irqs: 5,
      dmaLogging: 'no',
    });
  });

  it('tells about a v1 device what there is to tell', async () => {
    const { stdout } = await runCli(['probe', 'sim:vendor-v1,section=1M']);
    expect(stdout).toMatch(/^dataSize +not known before it is saved$/m);
    expect(stdout).toMatch(/^region 9 +1114112 bytes, READ \| WRITE \| MMAP, migration$/m);
    expect(stdout).not.toContain('migrationFlags');
  });

  it('tells of the log that a v2 device has of its DMA', async () => {
    const logging = async (spec: string): Promise<unknown> =>
      (JSON.parse((await runCli(['probe', `sim:${spec}`, '--json'])).stdout) as { dmaLogging: unknown }).dmaLogging;
    expect(await logging('qat,dma=2000')).toBe('works');
    expect(await logging('vendor-v1,dma=2000')).toBe('no');
  });

  it('tells which draft a device speaks', async () => {
    const { stdout } = await runCli(['probe', 'sim:draft-2018,section=1M']);
    expect(stdout).toMatch(/^protocol +draft-2018$/m);
    expect(stdout).toMatch(/^region 9 +1114112 bytes, READ \| WRITE \| MMAP, migration, of a draft$/m);
    expect(stdout).toMatch(/under vfio-shim run +yes: draft-2018 presented as v1; /);
  });

  it('says in one line that this host has no such device', async () => {
    const told = async (name: string): Promise<unknown> => {
      const { exit, stdout, stderr } = await runCli(['probe', name]);
      return [exit, stdout, stderr];
    };
    const none = '[ERR_DEVICE, ENODEV]\n';
    expect(await told('ffff:ff:1f.7')).toEqual([
      FAILED,
      '',
      `vfio-shim: ffff:ff:1f.7: this host has no such PCI device ${none}`,
    ]);
    expect(await told('/dev/vfio/999999')).toEqual([
      FAILED,
      '',
      `vfio-shim: /dev/vfio/999999: no VFIO device is known to be in this group ${none}`,
    ]);
    const uuid = '00000000-0000-0000-0000-000000000000';
    expect(await told(uuid)).toEqual([FAILED, '', `vfio-shim: ${uuid}: this host has no such mediated device ${none}`]);
  });

  it('says in one line why a node does not open', async () => {
    const group = join(directory, 'group');
    const device = `vfio:${group}:0000:01:00.0`;
    expect(await runCli(['probe', device])).toMatchObject({
      exit: FAILED,
      stdout: '',
      stderr: `vfio-shim: ${group}: does not exist; is the device bound to a vfio driver? [ERR_DEVICE, ENOENT]\n`,
    });
    expect((await runCli(['probe', 'vfio:/dev/vfio/devices/vfio77'])).stderr).toMatch(/\[ERR_DEVICE, ENOENT\]\n$/);
    writeFileSync(group, '', { mode: 0o600 });
    expect((await runCli(['probe', device])).stderr).toMatch(/\[ERR_\w+, E\w+\]\n$/);
  });

  const noNobody = lacksNobody();
  it.skipIf(noNobody !== undefined)(`says that a node is not for everybody${because(noNobody)}`, async () => {
    const group = join(directory, 'others');
    writeFileSync(group, '', { mode: 0o600 });
    const { stderr } = await runCli(['probe', `vfio:${group}:0000:01:00.0`], {}, NOBODY);
    expect(stderr).toBe(`vfio-shim: ${group}: permission denied [ERR_DEVICE, EACCES]\n`);
  });
});
