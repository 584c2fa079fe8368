import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { run } from '../../scripts/lib/process.mjs';

/** A kernel module, uncompressed. */
export interface Module {
  readonly name: string;
  readonly data: Buffer;
}

/** The guest's disk, its file systems and random numbers. */
const GUEST = ['virtio_pci', 'virtio_blk', 'ext4', '9p', '9pnet_virtio', 'virtio_rng'];
/** Checksums of ext4 as a module, which nothing depends on by name; Linux has them built in from 6.16 on. */
const CHECKSUMS = ['crc32c_generic'];
const VFIO = ['vfio', 'vfio_iommu_type1', 'mdev', 'mtty', 'v1mem', 'v2log'];

/**
 * The modules that a guest loads, each after those it depends on. `drivers` are those of Debian's kernel at `tree` that it does not
 * have, or whose place they take. Debian's vfio_pci goes with Debian's `struct vfio_device`, which iommufd changes.
 */
export async function collectModules(tree: string, drivers: Readonly<Record<string, string>>): Promise<Module[]> {
  const files = new Map(
    readdirSync(join(tree, 'kernel'), { recursive: true, encoding: 'utf8' })
      .filter((path) => /\.ko(\.xz)?$/.test(path))
      .map((path) => [moduleName(path), join(tree, 'kernel', path)]),
  );
  for (const [name, file] of Object.entries(drivers)) files.set(name, file);
  const builtIn = new Set(readFileSync(join(tree, 'modules.builtin'), 'utf8').trim().split('\n').map(moduleName));
  const modules = new Map<string, Module>();
  const add = async (name: string, ...above: readonly string[]): Promise<void> => {
    if (modules.has(name) || builtIn.has(name)) return;
    if (above.includes(name)) throw new Error(`modules that depend on each other: ${[...above, name].join(', ')}`);
    const file = files.get(name);
    if (file === undefined) throw new Error(`the kernel package has no module ${name}`);
    const data = await readModule(file);
    for (const dependency of dependencies(data)) await add(dependency, ...above, name);
    modules.set(name, { name, data });
  };
  const pci = 'iommufd' in drivers ? [] : ['vfio_pci'];
  const bell = 'bell' in drivers ? ['bell'] : [];
  for (const name of [...CHECKSUMS.filter((name) => files.has(name)), ...GUEST, ...VFIO, ...pci, ...bell])
    await add(name);
  return [...modules.values()];
}

/** modprobe's: `-` and `_` are the same. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.xz)?$/, '')
    .replaceAll('-', '_');
}

async function readModule(file: string): Promise<Buffer> {
  if (!file.endsWith('.xz')) return readFileSync(file);
  await run('xz', ['--decompress', '--force', '--keep', file]);
  return readFileSync(file.slice(0, -'.xz'.length));
}

/** The `depends=` string of the section `.modinfo`. */
function dependencies(module: Buffer): string[] {
  const marker = '\0depends=';
  const at = module.indexOf(marker);
  if (at < 0) throw new Error('not a kernel module: no depends= in it');
  const start = at + marker.length;
  const names = module.toString('latin1', start, module.indexOf(0, start));
  return names
    .split(',')
    .filter((name) => name !== '')
    .map(moduleName);
}
