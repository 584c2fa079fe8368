// A QEMU of another Debian than the machine's, run by its own ld.so and with its own libraries, modules and firmware.
import { join } from 'node:path';

/** @typedef {{ debian: string, triplet: string, loader: string }} Architecture */

/** @type {Readonly<Record<string, Architecture | undefined>>} */
export const ARCHITECTURES = {
  x64: { debian: 'amd64', triplet: 'x86_64-linux-gnu', loader: 'ld-linux-x86-64.so.2' },
  arm64: { debian: 'arm64', triplet: 'aarch64-linux-gnu', loader: 'ld-linux-aarch64.so.1' },
};

/** Debian's packages of QEMU by the processor that they emulate, and where their firmware is. */
export const EMULATORS = {
  x86_64: { package: 'qemu-system-x86', firmware: ['seabios', 'qemu'] },
  aarch64: { package: 'qemu-system-arm', firmware: ['qemu'] },
};

/**
 * The command of the QEMU that is unpacked below `root`.
 * @param {string} root
 * @param {Architecture} arch the machine's
 * @param {keyof typeof EMULATORS} [emulated]
 */
export function commandLine(root, { triplet, loader }, emulated = 'x86_64') {
  const libraries = join(root, 'usr/lib', triplet);
  const firmware = EMULATORS[emulated].firmware.flatMap((name) => ['-L', join(root, 'usr/share', name)]);
  const qemu = join(root, 'usr/bin', `qemu-system-${emulated}`);
  return [join(libraries, loader), '--inhibit-cache', '--library-path', libraries, qemu, ...firmware];
}

/**
 * A shell script that is that command.
 * @param {string} root
 * @param {Architecture} arch
 * @param {keyof typeof EMULATORS} [emulated]
 */
export function wrapperText(root, arch, emulated) {
  const quote = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  const modules = join(root, 'usr/lib', arch.triplet, 'qemu');
  return `#!/bin/sh
# Debian's QEMU with its own libraries. Written by vfio-shim.
export QEMU_MODULE_DIR=${quote(modules)}
exec ${commandLine(root, arch, emulated).map(quote).join(' ')} "$@"
`;
}
