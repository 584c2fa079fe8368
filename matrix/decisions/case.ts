import { protocolOf, type QemuVersion } from '../../tools/vmm/binaries.ts';
import type { Look } from './looks.ts';

export const KIB = 2 ** 10;
export const MIB = 2 ** 20;

/** In milliseconds: QEMU's default. */
export const DOWNTIME_LIMIT = 300;

/** Where the devices that do DMA write: what is dirty at once is this at most. Neither SeaBIOS nor what the memory is filled with is there. */
export const DMA_WINDOW = { at: 48 * MIB, size: 4 * MIB } as const;

/** How a driver hands over its state: most of it while the device runs, or all that matters when it has stopped. */
export type Pace = 'in pre-copy' | 'after the stop';

/** The devices of one pace and size, by what their drivers speak. */
const TWINS = {
  'in pre-copy': { v1: () => 'vendor-v1', v2: (size) => `mlx5,initial=${size}` },
  'after the stop': { v1: () => 'hisi-v1', v2: () => 'hisi' },
} as const satisfies Record<Pace, Record<'v1' | 'v2', (size: number) => string>>;

/** A decision without how it came about: what must be the same across the bridge. */
export type Verdict = 'stops it within the limit' | 'stops it above the limit' | 'does not stop the VM';

/** A VMM that decides when it stops a VM, with a device that it knows by its own protocol, and with its twin across the bridge. */
export interface Case {
  readonly qemu: QemuVersion;
  readonly pace: Pace;
  readonly size: number;
  /** Bytes a second that QEMU may send, and by which it tells what fits into the limit. */
  readonly bandwidth: number;
  /** Pages of the guest's memory, in DMA_WINDOW, that the device writes to in a second; none unless it is said. */
  readonly dma?: number;
  readonly expected: Verdict;
  /** The bridge leads to another decision, for a reason that lies in what the two drivers tell. */
  readonly difference?: { readonly bridged: Verdict; readonly why: string };
  /** Part of CI. */
  readonly quick?: boolean;
}

export type End = 'native' | 'bridged';
export const ENDS = ['native', 'bridged'] as const satisfies readonly End[];

/** What a VMM did. */
export interface Decision {
  /** False if it looked LOOKS times more than it takes to send what the device gives before, and did not stop the VM. */
  readonly stopped: boolean;
  /** How often it has looked for dirty memory (`dirty-sync-count`). */
  readonly rounds: number;
  /** Bytes of the driver before the stop, and behind it. QEMU 7.2 does not tell of the former while it migrates. */
  readonly before: number | undefined;
  readonly behind: number;
  /** What it was told when it looked last. */
  readonly last: Look;
  /** Bytes of the guest's memory that were to be sent when it had looked: the median of all looks. */
  readonly dirty: number;
}

/** How much QEMU may leave for the time when the VM is stopped. */
function allowance({ bandwidth }: Pick<Case, 'bandwidth'>): number {
  return (bandwidth * DOWNTIME_LIMIT) / 1000;
}

export function driverOf({ qemu, pace, size }: Case, end: End): string {
  const own = protocolOf(qemu);
  const other = own === 'v1' ? 'v2' : 'v1';
  return TWINS[pace][end === 'native' ? own : other](size);
}

/** QEMU 7.2 goes by the bandwidth that it measures: if that is more than the row's, what was left for the stop may be more as well. */
export function inWords({ stopped, behind, last }: Decision, each: Pick<Case, 'bandwidth'>): Verdict {
  if (!stopped) return 'does not stop the VM';
  return behind <= Math.max(allowance(each), last.fits ?? 0) ? 'stops it within the limit' : 'stops it above the limit';
}

/** True if what QEMU was told at its last look is the reason: it stops the VM if that fits or is nothing, and only then. */
export function isReason({ stopped, last }: Decision, each: Pick<Case, 'bandwidth'>): boolean {
  return stopped === (last.pending === 0 || last.pending < (last.fits ?? allowance(each)));
}

/** What is declared to come of it. */
export function declared({ expected, difference }: Case, end: End): Verdict {
  return end === 'native' ? expected : (difference?.bridged ?? expected);
}

export function rowOf({ qemu, pace, size, bandwidth }: Case): string {
  return `${qemu}: ${inUnits(size)} ${pace}, ${inUnits(bandwidth)}/s`;
}

export function dmaOf({ dma }: Case): string {
  return dma === undefined ? 'no' : `${dma} pages/s`;
}

export function titleOf(each: Case): string {
  return each.dma === undefined ? rowOf(each) : `${rowOf(each)}, DMA: ${dmaOf(each)}`;
}

export function inUnits(bytes: number): string {
  return bytes < MIB ? `${bytes / KIB} KiB` : `${bytes / MIB} MiB`;
}
