// A QEMU of another Debian than the machine's, run by its own ld.so and with its own libraries, modules and firmware.
import { join } from 'node:path';

/** @typedef {{ debian: string, triplet: string, loader: string }} Architecture */

/** @type {Readonly<Record<string, Architecture | undefined>>} */
export const ARCHITECTURES = {
  x64: { debian: 'amd64', triplet: 'x86_64-linux-gnu', loader: 'ld-linux-x86-64.so.2' },
  arm64: { debian: 'arm64', triplet: 'aarch64-linux-gnu', loader: 'ld-linux-aarch64.so.1' },
};

/**
 * The command of the qemu-system-x86_64 that is unpacked below `root`.
 * @param {string} root
 * @param {Architecture} arch
 */
export function commandLine(root, { triplet, loader }) {
  const libraries = join(root, 'usr/lib', triplet);
  const firmware = ['seabios', 'qemu'].flatMap((name) => ['-L', join(root, 'usr/share', name)]);
  const qemu = join(root, 'usr/bin/qemu-system-x86_64');
  return [join(libraries, loader), '--inhibit-cache', '--library-path', libraries, qemu, ...firmware];
}

/**
 * A shell script that is that command.
 * @param {string} root
 * @param {Architecture} arch
 */
export function wrapperText(root, arch) {
  const quote = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  const modules = join(root, 'usr/lib', arch.triplet, 'qemu');
  return `#!/bin/sh
# Debian's QEMU with its own libraries. Written by vfio-shim.
export QEMU_MODULE_DIR=${quote(modules)}
exec ${commandLine(root, arch).map(quote).join(' ')} "$@"
`;
}
