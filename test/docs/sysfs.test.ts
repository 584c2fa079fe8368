import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { device, hostWith, type Entry } from '../support/host-tree.ts';
import { onSysfs } from './scripts.ts';

const DEVICE = '0000:01:00.1';
const PCI = '/sys/bus/pci';

/** What a host has before: the device with a driver of the host's, or with none. */
function before(driver?: string): Record<string, Entry> {
  return {
    ...device(DEVICE, { group: '26', ...(driver !== undefined && { driver }) }),
    ...device('0000:01:00.2', { group: '26' }),
    '/sys/devices/pci0/0000:01:00.1/driver_override': '',
    [`${PCI}/drivers_probe`]: '',
    [`${PCI}/drivers/qat_4xxx/unbind`]: '',
    '/bin': null,
  };
}

/** Runs a block on a host that is a directory, and says what it printed, and what it wrote to the files that the kernel reads. */
function run(code: string, entries: Record<string, Entry>): { printed: string; told: string[]; loaded: string } {
  const host = hostWith(entries);
  const loaded = host.at('/loaded');
  mkdirSync(host.at('/bin'), { recursive: true });
  writeFileSync(host.at('/bin/modprobe'), `#!/bin/sh\necho "$@" >> '${loaded}'\n`);
  chmodSync(host.at('/bin/modprobe'), 0o755);
  writeFileSync(loaded, '');
  const { status, stdout, stderr } = spawnSync('bash', ['-euc', code.replaceAll('/sys/', host.at('/sys/'))], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'], // bash reads bashrc if its input is a socket
    env: { ...process.env, PATH: `${host.at('/bin')}:${process.env['PATH']}` },
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const files = [`devices/${DEVICE}/driver_override`, 'drivers/qat_4xxx/unbind', 'drivers_probe'];
  const told = files.map((file) => readFileSync(host.at(join(PCI, file)), 'utf8'));
  return { printed: stdout, told, loaded: readFileSync(loaded, 'utf8') };
}

const [finds, binds] = onSysfs.map(({ code }) => code);

describe('commands on sysfs', () => {
  it('are those that find a group, and those that bind a driver', () => {
    expect(onSysfs.map(({ path }) => path)).toEqual(['docs/kernel-devices.md', 'docs/kernel-devices.md']);
  });

  it('find the group, and who is in it', () => {
    expect(run(finds ?? '', before()).printed).toBe(`26\n${DEVICE}\n0000:01:00.2\n`);
  });

  it('bind a device that a driver of the host has', () => {
    expect(run(binds ?? '', before('qat_4xxx'))).toEqual({
      printed: 'qat_4xxx\n', // nobody here does what the kernel does when it is told
      told: ['qat_vfio_pci\n', `${DEVICE}\n`, `${DEVICE}\n`],
      loaded: 'qat_vfio_pci\n',
    });
  });

  it('bind a device that has no driver', () => {
    expect(run(binds ?? '', before()).told).toEqual(['qat_vfio_pci\n', '', `${DEVICE}\n`]);
  });
});
