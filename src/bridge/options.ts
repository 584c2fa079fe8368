/** Is told what the operator should know and no call shows: a reset, a session that was lost. */
export type Warn = (message: string) => void;

/** Fresh memory for an object's own state, all 0; pass memory that holds a former state to go on from it. */
export function stateMemory(size: number, given: Uint8Array | undefined): Uint8Array {
  if (given === undefined) return new Uint8Array(size);
  if (given.length < size) throw new RangeError(`state memory: ${given.length} bytes given, ${size} needed`);
  return given;
}
