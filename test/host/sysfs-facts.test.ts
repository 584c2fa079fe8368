import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sysfsFacts } from '../../src/host/sysfs-facts.ts';

const MODALIAS = 'pci:v00008086d00004941sv00008086sd00000000bc0Bsc40i00';

describe('sysfsFacts', () => {
  const root = mkdtempSync(join(tmpdir(), 'vfio-shim-sysfs-'));
  const uuid = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
  afterAll(() => rmSync(root, { recursive: true }));
  beforeAll(() => {
    const make = (path: string): string => {
      mkdirSync(join(root, path), { recursive: true });
      return join(root, path);
    };
    const pci = make('devices/pci0000:00/0000:01:00.0');
    writeFileSync(join(pci, 'modalias'), `${MODALIAS}\n`);
    symlinkSync(make('bus/pci/drivers/qat_vfio_pci'), join(pci, 'driver'));
    symlinkSync(join(root, 'bus/pci'), join(pci, 'subsystem'));
    symlinkSync(pci, join(make('bus/pci/devices'), '0000:01:00.0'));
    symlinkSync(pci, join(make('class/vfio-dev/vfio0'), 'device'));
    const mdev = make(`devices/virtual/mtty/mtty/${uuid}`);
    const type = make('devices/virtual/mtty/mtty/mdev_supported_types/mtty-2');
    writeFileSync(join(type, 'name'), 'Dual port serial\n');
    symlinkSync(type, join(mdev, 'mdev_type'));
    symlinkSync(make('bus/mdev/drivers/mtty'), join(mdev, 'driver'));
    symlinkSync(mdev, join(make('bus/mdev/devices'), uuid));
  });

  it('finds a PCI device by its address and by its own node', () => {
    const facts = { bus: 'pci', driver: 'qat_vfio_pci', modalias: MODALIAS };
    expect(sysfsFacts('0000:01:00.0', root)).toEqual({ ...facts, path: join(root, 'bus/pci/devices/0000:01:00.0') });
    expect(sysfsFacts('vfio0', root)).toEqual({ ...facts, path: join(root, 'devices/pci0000:00/0000:01:00.0') });
  });

  it('finds a mediated device and its type', () => {
    const path = join(root, 'bus/mdev/devices', uuid);
    const type = { mdevType: 'mtty-2', mdevTypeName: 'Dual port serial' };
    expect(sysfsFacts(uuid, root)).toEqual({ path, bus: 'mdev', driver: 'mtty', ...type });
  });

  it('knows nothing of what is not there', () => {
    for (const name of ['0000:02:00.0', '..', '.', '', '../pci', 'a/b']) expect(sysfsFacts(name, root)).toEqual({});
    expect(sysfsFacts('0000:01:00.0', join(root, 'nowhere'))).toEqual({});
  });
});
