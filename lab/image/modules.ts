import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { run } from '../../scripts/lib/process.mjs';

/** A kernel module, uncompressed. */
export interface Module {
  readonly name: string;
  readonly data: Buffer;
  /** What takes its place in a guest in which DMA_LOGGING_REPORT reports. */
  readonly reporting?: Buffer;
}

/** The guest's disk, its file systems, random numbers, VFIO; what these depend on comes of itself. */
const WANTED = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4', '9p', '9pnet_virtio', 'virtio_rng'];
const VFIO = ['vfio', 'vfio_iommu_type1', 'vfio_pci', 'mdev', 'mtty', 'v1mem', 'v2log'];

/** The modules that the guest loads, each after those it depends on. */
export async function collectModules(
  tree: string,
  drivers: Readonly<Record<string, string>>,
  reporting: Readonly<Record<string, string>>,
): Promise<Module[]> {
  const files = new Map(
    readdirSync(join(tree, 'kernel'), { recursive: true, encoding: 'utf8' })
      .filter((path) => /\.ko(\.xz)?$/.test(path))
      .map((path) => [moduleName(path), join(tree, 'kernel', path)]),
  );
  for (const [name, file] of Object.entries(drivers)) files.set(name, file);
  const builtIn = new Set(readFileSync(join(tree, 'modules.builtin'), 'utf8').trim().split('\n').map(moduleName));
  const modules = new Map<string, Module>();
  const add = async (name: string): Promise<void> => {
    if (modules.has(name) || builtIn.has(name)) return;
    const file = files.get(name);
    if (file === undefined) throw new Error(`the kernel package has no module ${name}`);
    const data = await readModule(file);
    for (const dependency of dependencies(data)) await add(dependency);
    const other = reporting[name];
    modules.set(name, { name, data, ...(other !== undefined && { reporting: await readModule(other) }) });
  };
  for (const name of [...WANTED, ...VFIO]) await add(name);
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
