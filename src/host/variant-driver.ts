import type { Host } from './host.ts';

/** Which devices a module's driver is for, in the form of modules.alias. */
interface Alias {
  readonly pattern: string;
  readonly module: string;
}

/** What the lists of a kernel's modules say. */
export type Variant =
  | { readonly listed: true; readonly module: string | undefined }
  /** They cannot be read: in a container, for instance. */
  | { readonly listed: false };

/**
 * The VFIO driver that a kernel has for this very device, by the name of its module, or none but vfio-pci, which takes all. Drivers that are bound by `driver_override` only are told from others by `vfio_pci:` in place of `pci:` (linux/mod_devicetable.h 5.15:
 * PCI_ID_F_VFIO_DRIVER_OVERRIDE); the one with the fewest wildcards is meant. `modalias`: as sysfs has it.
 */
export function variantDriver(host: Host, release: string, modalias: string): Variant {
  const all = aliases(host, `/lib/modules/${release}`);
  if (all === undefined) return { listed: false };
  const device = `vfio_${modalias}`;
  const [best] = all
    .filter(({ module, pattern }) => module !== 'vfio_pci' && matches(pattern, device))
    .sort((a, b) => wildcards(a.pattern) - wildcards(b.pattern));
  return { listed: true, module: best?.module };
}

/** Those of modules (modules.alias, as depmod writes it), and of drivers that are built in (modules.builtin.modinfo, Linux 5.2). */
function aliases(host: Host, directory: string): Alias[] | undefined {
  const loadable = host.text(`${directory}/modules.alias`);
  if (loadable === undefined) return undefined;
  const builtIn = host.text(`${directory}/modules.builtin.modinfo`) ?? '';
  return [
    ...Array.from(loadable.matchAll(/^alias (vfio_pci:\S+) (\S+)$/gm), ([, pattern = '', module = '']) => ({
      pattern,
      module,
    })),
    ...Array.from(builtIn.matchAll(/(?:^|\0)([^.\0]+)\.alias=(vfio_pci:[^\0]*)/g), ([, module = '', pattern = '']) => ({
      pattern,
      module,
    })),
  ];
}

const wildcards = (pattern: string): number => pattern.split('*').length;

/** As modprobe matches: fnmatch(3) without brackets, which no alias of a PCI device has. */
function matches(pattern: string, text: string): boolean {
  const escaped = pattern.replaceAll(/[^\w*?:]/g, String.raw`\$&`);
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(text);
}
