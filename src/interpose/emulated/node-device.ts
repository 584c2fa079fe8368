import type { MigratableDevice } from '../../device/migratable.ts';
import type { Turn } from '../memory/turn.ts';
import type { EmulatedDma } from './emulated-dma.ts';

/** A device, as far as its group and its users' descriptors go. */
export interface NodeDevice {
  readonly name: string;
  readonly driver: {
    readonly files: { readonly device: number; readonly group: number };
    readonly sim: MigratableDevice;
    /** Of a device that writes to memory. */
    readonly dma?: EmulatedDma | undefined;
  };
  /** A user gets the device's fd, and is the only one that has it. */
  opened(turn: Turn): void;
}

/** Hands a descriptor to the caller as its call's answer. */
export type SendFd = (turn: Turn, fd: number, closeOnExec: boolean) => void;
