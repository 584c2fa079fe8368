import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ShimError } from '../error.ts';
import type { Check } from './check.ts';

const NAMES: Readonly<Partial<Record<NodeJS.Architecture, string>>> = {
  x64: 'qemu-system-x86_64',
  arm64: 'qemu-system-aarch64',
};
/** Where the qemu-kvm of some distributions is, which is in no PATH. */
const LIBEXEC = '/usr/libexec';

/** The QEMUs of this architecture that PATH has, and which protocol each speaks. `version`: asks one, and throws if it does not say. */
export function qemus(path: string, arch: NodeJS.Architecture, version: (path: string) => string): Check[] {
  const names = [NAMES[arch] ?? `qemu-system-${arch}`, 'qemu-kvm'];
  const directories = [...new Set([...path.split(delimiter), LIBEXEC].filter((directory) => directory !== ''))];
  const all = directories.flatMap((directory) => names.map((name) => join(directory, name))).filter(isProgram);
  const found = new Map([...all].reverse().map((program) => [realpathSync(program), program])).values();
  if (all.length === 0) {
    return [
      {
        name: 'qemu',
        level: 'warn',
        what: `QEMU: neither ${names.join(' nor ')} is in PATH`,
        remedy: 'give run the path of the VMM',
      },
    ];
  }
  return Array.from(found, (program) => ofProgram(program, version)).reverse();
}

function ofProgram(program: string, version: (path: string) => string): Check {
  try {
    const known = version(program);
    const protocol = protocolOf(known);
    const what = `${program}: QEMU ${known}, ${protocol ?? 'which has no VFIO migration'}`;
    if (protocol !== undefined) return { name: 'qemu', level: 'ok', what };
    return { name: 'qemu', level: 'warn', what, remedy: 'QEMU 5.2 and later have it' };
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    return { name: 'qemu', level: 'warn', what: error.message, remedy: 'cannot tell which protocol it speaks' };
  }
}

/** QEMU: hw/vfio/migration.c, from 5.2 on, and from 8.0 on with v2 alone. */
function protocolOf(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  if (major >= 8) return 'speaks v2';
  return major > 5 || (major === 5 && minor >= 2) ? 'speaks v1' : undefined;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
