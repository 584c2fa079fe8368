import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { qemuVersion } from '../../src/vmm/qemu-version.ts';

/** The QEMUs of the tests: the last that speaks v1, and one that speaks v2. */
export type QemuVersion = '7.2' | '10.0';

const FETCH = fileURLToPath(new URL('../../scripts/qemu10.mjs', import.meta.url));

const isSet = (name: string): boolean => !['', '0', 'false', undefined].includes(process.env[name]);

/** True if a test that lacks a program fails instead of being skipped. */
export const ci = isSet('CI');

/** What each QEMU is if an environment variable does not say so. */
const BINARIES: Readonly<Record<QemuVersion, { readonly variable: string; readonly usual: () => string | undefined }>> =
  {
    '7.2': { variable: 'VFIO_SHIM_QEMU', usual: () => 'qemu-system-x86_64' },
    '10.0': { variable: 'VFIO_SHIM_QEMU10', usual: () => (fetched ??= cachedQemu()) },
  };

let fetched: string | undefined;

function cachedQemu(): string | undefined {
  const { status, stdout } = spawnSync(process.execPath, [FETCH, '--cached'], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}

function findQemu(version: QemuVersion): string | undefined {
  const { variable, usual } = BINARIES[version];
  return process.env[variable] ?? usual();
}

/** The command of a QEMU that the test's group requires. */
export function qemuBinary(version: QemuVersion): string {
  const path = findQemu(version);
  if (path === undefined) throw new Error(`QEMU ${version} is not fetched: does the group of tests require it?`);
  return path;
}

/** True if QEMU is not there but may be fetched: in CI, and if the developer wants it. */
export function isToBeFetched(version: QemuVersion): boolean {
  return findQemu(version) === undefined && (ci || isSet('VFIO_SHIM_FETCH'));
}

/** Fetches QEMU 10.0 into the developer's cache; an error quotes the script. */
export async function fetchQemu(): Promise<void> {
  const { stdout } = await promisify(execFile)(process.execPath, [FETCH]);
  fetched = stdout.trim();
}

/** Why the tests with a QEMU cannot run here; `undefined` if they can. */
export function missingQemu(version: QemuVersion): string | undefined {
  const path = findQemu(version);
  if (path === undefined) return `QEMU ${version} is not fetched, VFIO_SHIM_FETCH=1 does that`;
  const advice = `set ${BINARIES[version].variable}`;
  try {
    const seen = qemuVersion(path);
    const [major] = version.split('.');
    return seen.startsWith(`${major}.`) ? undefined : `${path} is QEMU ${seen}, not ${version}; ${advice}`;
  } catch (error) {
    return `no QEMU ${version}: ${(error as Error).message}; ${advice}`;
  }
}
