import type { V1Device } from '../v1/device.ts';
import type { Draft, DraftDevice } from '../v1/drafts/device.ts';
import type { V2Device } from '../v2/device.ts';
import type { CommonOptions } from './common-options.ts';
import type { SimMemory } from './memory.ts';
import type { Options, ValuesOf } from './option.ts';

/**
 * A simulated driver, as everything else knows it: what it speaks, its options, who it is to PCI, and how it is made. Its functions are
 * declared as methods, so that drivers with options `O` of their own have a common type.
 */
export type DriverKind<O extends CommonOptions = CommonOptions> = V1Kind<O> | V2Kind<O> | DraftKind<O>;

/** Is told what a driver has to say besides its answers. */
export type SimWarn = (message: string) => void;

/** A driver of the first protocol. */
export interface V1Kind<O extends CommonOptions = CommonOptions> extends Kind<O> {
  readonly protocol: 'v1';
  /** Bytes of its data section. */
  sectionSize(values: ValuesOf<O>): number;
  /** Makes a device over memory that is fresh, or that one with the same values has left behind. */
  create(values: ValuesOf<O>, memory: SimMemory, warn?: SimWarn): V1Device;
}

/** A driver of the second protocol. */
export interface V2Kind<O extends CommonOptions = CommonOptions> extends Kind<O> {
  readonly protocol: 'v2';
  /** Makes a device over memory that is fresh, or that one with the same values has left behind. */
  create(values: ValuesOf<O>, memory: SimMemory, warn?: SimWarn): V2Device;
}

/** A driver of one of the drafts before the first protocol. */
export interface DraftKind<O extends CommonOptions = CommonOptions> extends Kind<O> {
  readonly protocol: Draft;
  /** Bytes of its data section. */
  sectionSize(values: ValuesOf<O>): number;
  /** Makes a device over memory that is fresh, or that one with the same values has left behind. */
  create(values: ValuesOf<O>, memory: SimMemory, warn?: SimWarn): DraftDevice;
}

interface Kind<O extends Options> {
  /** What it is like, in a line for help texts. */
  readonly summary: string;
  readonly options: O;
  readonly pci: PciIdentity;
  /** It takes its memory in pieces (`SimMemory.pieces`), and so may have more than Node maps. */
  readonly takesPieces?: boolean;
  /** Bytes of what it keeps besides its registers and the memory that the guest sees: none, if it does not say. */
  keptSize?(values: ValuesOf<O>): number;
  /** What options are if they are not given, where others decide that. */
  defaults?(values: ValuesOf<O>): Partial<ValuesOf<O>>;
  /** What is wrong with options that do not go together, if anything is. */
  check?(values: ValuesOf<O>): string | undefined;
  /** Options of a small device, with which code is rehearsed. */
  readonly small: Partial<ValuesOf<O>>;
  /** What tells its state from that of another device with this driver, apart from the memory's size. */
  identity(values: ValuesOf<O>): Readonly<Record<string, string>>;
}

/** The numbers by which PCI knows a device. */
export interface PciIdentity {
  readonly vendor: number;
  readonly device: number;
  readonly class: number;
}
