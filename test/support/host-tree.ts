import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Host } from '../../src/host/host.ts';

/** What a path of a host holds: a text, a directory, or a symbolic link to a path of the host. */
export type Entry = string | { readonly link: string } | null;

/** A host that has these files, as long as the test takes. A link is written as it is, as nothing follows it but a directory's. */
export function hostWith(entries: Readonly<Record<string, Entry>>): Host {
  const root = mkdtempSync(join(tmpdir(), 'vfio-shim-host-'));
  onTestFinished(() => rmSync(root, { recursive: true }));
  for (const [path, entry] of Object.entries(entries)) {
    const at = join(root, path);
    mkdirSync(entry === null ? at : dirname(at), { recursive: true });
    if (typeof entry === 'string') writeFileSync(at, entry);
    else if (entry !== null) symlinkSync(entry.link.replace(/^\/sys\//, `${root}/sys/`), at);
  }
  return new Host(root);
}

/** A device as sysfs shows it. */
export interface Shown {
  readonly bus?: string;
  readonly driver?: string;
  readonly group?: string;
  readonly vfio?: string;
  readonly modalias?: string;
}

/** The entries of a device in sysfs: in its group, on its bus, in VFIO's classes. */
export function device(name: string, { bus = 'pci', driver, group, vfio, modalias }: Shown): Record<string, Entry> {
  const path = `/sys/devices/${bus}0/${name}`;
  const number = group?.replace('noiommu-', '');
  return {
    [path]: null,
    [`${path}/subsystem`]: { link: `/sys/bus/${bus}` },
    ...(driver !== undefined && { [`${path}/driver`]: { link: `/sys/bus/${bus}/drivers/${driver}` } }),
    ...(modalias !== undefined && { [`${path}/modalias`]: `${modalias}\n` }),
    [`/sys/bus/${bus}/devices/${name}`]: { link: path },
    ...(number !== undefined && {
      [`${path}/iommu_group`]: { link: `/sys/kernel/iommu_groups/${number}` },
      [`/sys/kernel/iommu_groups/${number}/devices/${name}`]: { link: path },
    }),
    ...(vfio !== undefined && {
      [`${path}/vfio-dev/${vfio}`]: null,
      [`/sys/class/vfio-dev/${vfio}/device`]: { link: path },
    }),
  };
}

/** The entries of a group that has a node. */
export function group(name: string): Record<string, Entry> {
  return { [`/sys/class/vfio/${name}`]: null, [`/dev/vfio/${name}`]: '' };
}

/** A process with these descriptors. */
export function processWith(pid: number, command: string, ...targets: string[]): Record<string, Entry> {
  const fds = targets.map((link, fd) => [`/proc/${pid}/fd/${fd}`, { link }] as const);
  return { [`/proc/${pid}/comm`]: `${command}\n`, [`/proc/${pid}/fd`]: null, ...Object.fromEntries(fds) };
}
