import { beforeAll, describe, expect, it } from 'vitest';
import { inWords, list, type Listed } from '../../src/cli/list.ts';
import { ShimError } from '../../src/error.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { OK, runCli } from '../support/cli-run.ts';
import { failure } from '../support/errno.ts';
import { device, group, hostWith, processWith, type Entry } from '../support/host-tree.ts';

const UUID = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
const QAT = { name: '0000:01:00.0', bus: 'pci', driver: 'qat_vfio_pci', group: '26', vfio: 'vfio0' };
const MTTY = { name: UUID, bus: 'mdev', driver: 'mtty', group: '27', vfio: null };
const DEVICES = {
  ...processWith(1, 'init'),
  ...group('26'),
  ...group('27'),
  ...device(QAT.name, { driver: 'qat_vfio_pci', group: '26', vfio: 'vfio0' }),
  ...device(UUID, { bus: 'mdev', driver: 'mtty', group: '27', vfio: 'vfio1' }),
};
const HIDDEN = 'a process that /proc does not show has it';

/** What is told of the first device: its protocol, or why none is known, and who has it. */
function told(entries: Record<string, Entry>, ask?: (path: string) => string): unknown[] {
  const [first] = list(hostWith(entries), ask);
  if (first === undefined) throw new Error('no device');
  return [first.protocol ?? first.unknown, first.openBy, first.unseen];
}

const failing = (error: ShimError) => (): never => {
  throw error;
};

describe('list', () => {
  it('tells each device, its nodes, and what its driver speaks', () => {
    const asked: string[] = [];
    const ask = (path: string): string => {
      asked.push(path);
      return path.endsWith(UUID) ? 'v1' : 'v2';
    };
    const free = { unknown: null, openBy: [], unseen: null };
    expect(list(hostWith(DEVICES), ask)).toEqual([
      { ...QAT, protocol: 'v2', ...free },
      { ...MTTY, vfio: 'vfio1', protocol: 'v1', ...free },
    ]);
    expect(asked).toEqual(['/dev/vfio/26:0000:01:00.0', `/dev/vfio/27:${UUID}`]);
  });

  it('tells who has a device, and opens none that somebody has', () => {
    const qemu = { pid: 4711, command: 'qemu-system-x86' };
    const opened = failing(new ShimError('ERR_DEVICE', 'opened'));
    for (const node of ['/dev/vfio/26', '/dev/vfio/devices/vfio0']) {
      expect(told({ ...DEVICES, ...processWith(4711, 'qemu-system-x86', node) }, opened)).toEqual([
        'busy',
        [qemu],
        null,
      ]);
    }
  });

  it('cannot tell what it may not ask, or see', () => {
    const busy = failing(failure('EBUSY'));
    expect(told(DEVICES, busy)).toEqual(['busy', [], HIDDEN]);
    expect(told({ ...DEVICES, '/proc/9/fd': '' }, busy)).toEqual([
      'busy',
      [],
      '1 process is not for this user to look at',
    ]);
    const denied = new ShimError('ERR_DEVICE', '/dev/vfio/26: permission denied', { errno: 'EACCES' });
    expect(told(DEVICES, failing(denied))).toEqual(['/dev/vfio/26: permission denied', [], null]);
    expect(told(DEVICES)).toEqual(['not asked', [], null]);
    expect(told({ ...DEVICES, '/proc/9/fd': '' })).toEqual([
      'not asked',
      [],
      '1 process is not for this user to look at',
    ]);
  });

  it('knows that nobody has a device that it could open, whatever it may not see', () => {
    expect(told({ ...DEVICES, '/proc/9/fd': '' }, () => 'none')).toEqual(['none', [], null]);
  });

  it('passes on a fault of its own', () => {
    expect(() =>
      told(DEVICES, () => {
        throw new TypeError('ours');
      }),
    ).toThrow('ours');
  });
});

describe('what list prints', () => {
  it('is a table', () => {
    const free = { unknown: null, openBy: [], unseen: null };
    const busy = { protocol: null, unknown: 'busy' };
    const rows: Listed[] = [
      { ...QAT, protocol: 'v2', ...free },
      {
        ...MTTY,
        ...busy,
        openBy: [
          { pid: 1, command: 'a\u001b[2Jb' },
          { pid: 22, command: 'qemu' },
        ],
        unseen: null,
      },
      { ...MTTY, driver: null, group: null, ...busy, openBy: [], unseen: HIDDEN },
    ];
    expect(inWords(rows)).toBe(`\
DEVICE                                DRIVER        GROUP  VFIO   PROTOCOL           OPEN BY
0000:01:00.0                          qat_vfio_pci  26     vfio0  v2                 nobody
${UUID}  mtty          27     -      cannot tell: busy  1 "a\\u001b[2Jb", 22 qemu
${UUID}  none          -      -      cannot tell: busy  cannot tell: ${HIDDEN}
`);
  });

  it('says that there is none', () => {
    expect(inWords([])).toBe('No device of this host is bound to a VFIO driver.\n');
  });
});

describe('vfio-shim list', () => {
  beforeAll(requireCli);

  it('tells of this host what the host has', async () => {
    const { exit, stdout, stderr } = await runCli(['list', '--no-open', '--json']);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    const { devices } = JSON.parse(stdout) as { devices: Listed[] };
    expect((await runCli(['list', '--no-open'])).stdout).toBe(inWords(devices));
  });
});
