import type { QemuVersion } from '../tools/vmm/binaries.ts';
import type { FileAccess } from '../tools/vmm/migration-file.ts';

/** The devices of the matrix, `none` for a VM without one, which shows what is QEMU's own doing. */
export type MatrixDevice = 'none' | 'qat' | 'mtty' | 'pds' | 'vendor-v1';

/**
 * How the state gets from one VM to the other: over a UNIX socket that QEMU opens, or one whose ends it is handed as descriptors;
 * through a file; as a snapshot, which `-loadvm` loads.
 */
export type Way = 'live' | 'fd' | FileAccess | 'savevm';

/** True if both VMs are there at once. */
export const isLive = ({ way }: Cell): boolean => way === 'live' || way === 'fd';

/** One migration, and what is to come of it. */
export interface Cell {
  /** The table that it is in, by its title, and where. */
  readonly table: string;
  readonly row: string;
  readonly column: string;
  readonly from: QemuVersion;
  readonly to: QemuVersion;
  readonly machine: string;
  readonly device: MatrixDevice;
  readonly way: Way;
  /** QEMU's migration capabilities that are on at both ends, besides return-path, which is on in live migrations. */
  readonly capabilities?: readonly string[];
  readonly withoutReturnPath?: boolean;
  /** Properties of the VFIO device at both ends. */
  readonly properties?: readonly string[];
  /** Options of `run` at one end in place of `--present`. */
  readonly fromRun?: readonly string[];
  readonly toRun?: readonly string[];
  /** Trace events of QEMU without which what the cell is about was not at work. */
  readonly sourceTraces?: readonly string[];
  readonly destinationTraces?: readonly string[];
  /** QEMU refuses, in these words. The VM must run on at the source, unless it went into a file. */
  readonly refusal?: string;
  /** QEMU does not stop the VM, however often it looks whether it may, for this reason; cancelled, the VM runs on. */
  readonly stalls?: string;
  /** Part of `--quick`, and of CI. */
  readonly quick?: boolean;
}

export type Outcome =
  | { readonly verdict: 'works'; readonly sha256: string | undefined }
  /** `words`: in which QEMU says why. */
  | { readonly verdict: 'refused'; readonly words: string }
  | { readonly verdict: 'stalls'; readonly words: string }
  /** `story`: what all processes printed. */
  | { readonly verdict: 'fails'; readonly words: string; readonly story?: string }
  | { readonly verdict: 'not run'; readonly words: string };

/** What the cell says of itself beforehand. */
export function declared({ refusal, stalls }: Cell): Outcome {
  if (stalls !== undefined) return { verdict: 'stalls', words: stalls };
  return refusal === undefined ? { verdict: 'works', sha256: undefined } : { verdict: 'refused', words: refusal };
}

/** `5.2 to 10.0, qat, live`, as the terminal and tests name it. */
export function titleOf({ table, row, column }: Cell): string {
  return `${table}: ${row}, ${column}`;
}
