import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Qemu } from '../../src/vmm/qemu-command.ts';
import { qemuVersion } from '../../src/vmm/qemu-version.ts';

/** The QEMUs of the tests: the first and the last that speak v1, one that speaks v2, and the newest that Debian has. */
export type QemuVersion = '5.2' | '7.2' | '10.0' | 'newest';

interface Binary {
  /** The environment variable that names another. */
  readonly variable: string;
  /** The suite of Debian that has it, for scripts/qemu.mjs. */
  readonly suite: string;
  readonly matches: RegExp;
  /** The machine's own comes before the suite's if it is one. */
  readonly own?: string;
}

const FETCH = fileURLToPath(new URL('../../scripts/qemu.mjs', import.meta.url));

const isSet = (name: string): boolean => !['', '0', 'false', undefined].includes(process.env[name]);

/** True if a test that lacks a program fails instead of being skipped. */
export const ci = isSet('CI');

const BINARIES: Readonly<Record<QemuVersion, Binary>> = {
  '5.2': { variable: 'VFIO_SHIM_QEMU52', suite: 'bullseye', matches: /^5\.2\./ },
  '7.2': { variable: 'VFIO_SHIM_QEMU', suite: 'bookworm', matches: /^7\./, own: 'qemu-system-x86_64' },
  '10.0': { variable: 'VFIO_SHIM_QEMU10', suite: 'trixie', matches: /^10\./ },
  newest: { variable: 'VFIO_SHIM_QEMU_NEWEST', suite: 'sid', matches: /^(1[1-9]|[2-9]\d)\./ },
};

/** What was found, as nothing of it changes while tests run: paths by what is wanted, versions by path. */
const paths = new Map<QemuVersion, string>();
const versions = new Map<string, string>();

/** The version by the program's own word. */
function ask(path: string): string {
  const version = versions.get(path) ?? qemuVersion(path);
  versions.set(path, version);
  return version;
}

function isOne(path: string, { matches }: Binary): boolean {
  try {
    return matches.test(ask(path));
  } catch {
    return false;
  }
}

function cachedQemu(suite: string): string | undefined {
  const { status, stdout } = spawnSync(process.execPath, [FETCH, '--cached', suite], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}

function findQemu(version: QemuVersion): string | undefined {
  const binary = BINARIES[version];
  const { variable, suite, own } = binary;
  const path =
    process.env[variable] ??
    paths.get(version) ??
    (own !== undefined && isOne(own, binary) ? own : undefined) ??
    cachedQemu(suite);
  if (path !== undefined) paths.set(version, path);
  return path;
}

/** The command of a QEMU that the test's group requires. */
export function qemuBinary(version: QemuVersion): string {
  const path = findQemu(version);
  if (path === undefined) throw new Error(`QEMU ${version} is not fetched: does the group of tests require it?`);
  return path;
}

/** That QEMU, as it is started. It is asked for its version only if its name does not tell: in the lab's guest that takes long. */
export function qemuProgram(version: QemuVersion): Qemu {
  const path = qemuBinary(version);
  return { path, version: version === 'newest' ? ask(path) : version };
}

/** The migration protocol that a QEMU speaks. */
export function protocolOf(version: QemuVersion): 'v1' | 'v2' {
  return version === '5.2' || version === '7.2' ? 'v1' : 'v2';
}

/** True if QEMU is not there but may be fetched: in CI, and if the developer wants it. */
export function isToBeFetched(version: QemuVersion): boolean {
  return findQemu(version) === undefined && (ci || isSet('VFIO_SHIM_FETCH'));
}

/** Fetches a QEMU into the developer's cache; an error quotes the script. */
export async function fetchQemu(version: QemuVersion): Promise<void> {
  const { stdout } = await promisify(execFile)(process.execPath, [FETCH, BINARIES[version].suite]);
  paths.set(version, stdout.trim());
}

/** Why the tests with a QEMU cannot run here; `undefined` if they can. */
export function missingQemu(version: QemuVersion): string | undefined {
  const path = findQemu(version);
  if (path === undefined) return `QEMU ${version} is not fetched, VFIO_SHIM_FETCH=1 does that`;
  const { variable, matches } = BINARIES[version];
  try {
    const seen = ask(path);
    return matches.test(seen) ? undefined : `${path} is QEMU ${seen}, not ${version}; set ${variable}`;
  } catch (error) {
    return `no QEMU ${version}: ${(error as Error).message}; set ${variable}`;
  }
}
