import type { V2State } from '../v2/states.ts';

/** What a bridge tells whoever watches it. Numbers are bytes. */
export interface BridgeEvents {
  /** The device is in a new state: the v1 device_state and the v2 state that stand for each other. */
  state?(v1: number, v2: V2State): void;
  /** One v1 buffer went through, out of the device or into it. */
  moved?(direction: 'out' | 'in', bytes: number): void;
  /** Something the operator should know: a reset, a session lost. */
  warning?(message: string): void;
}

/** Fresh memory for an object's own state, all 0; pass memory that holds a former state to go on from it. */
export function stateMemory(size: number, given: Uint8Array | undefined): Uint8Array {
  if (given === undefined) return new Uint8Array(size);
  if (given.length < size) throw new RangeError(`state memory: ${given.length} bytes given, ${size} needed`);
  return given;
}
