import { PAGE_SIZE } from '../../src/sys/libc.ts';
import { checkLive, checkRefused, checkThroughFile, type Crossing } from '../guest/crossing.ts';
import { NEW, OLD, ROUND, type End } from '../guest/pair.ts';

/** Unmodified old and new VMMs migrate a device of a real v2 driver, to each other and back. */

const AUTO: End = { qemu: '7.2', shim: [] };

/**
 * Whether QEMU 10.0 can be a source. It asks the kernel for dirty pages of each section of the guest's memory, and the VM is an x86 PC, whose
 * sections below 1 MiB are multiples of 4 KiB: where the host's pages are larger, VFIO_IOMMU_DIRTY_PAGES answers EINVAL, and QEMU
 * gives up. QEMU 7.2 goes on after that answer.
 */
const canBeSource = ({ qemu }: End): boolean => qemu === '7.2' || PAGE_SIZE === 4096;

const crossings: readonly Crossing[] = [
  ['7.2 under run to 7.2 under run', OLD, OLD],
  ['7.2 under run to native 10.0', OLD, NEW],
  ['native 10.0 to 7.2 under run', NEW, OLD],
  ['10.0 under run --present v2 --round-trip to native 10.0', ROUND, NEW],
  ['native 10.0 to 10.0 under run --present v2 --round-trip', NEW, ROUND],
  ['7.2 under run, both protocols shown, to 10.0 under the same', AUTO, { qemu: '10.0', shim: [] }],
];

const possible = crossings.filter(([, from]) => canBeSource(from));
await checkLive(possible);
await checkThroughFile(possible);
await checkRefused(
  crossings.filter(([, from]) => !canBeSource(from)),
  /dirty bitmap.*Invalid argument/i,
);
