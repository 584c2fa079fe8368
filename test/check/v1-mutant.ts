import type { V1Device } from '../../src/v1/device.ts';
import { V1RegisterAccess } from '../../src/v1/registers.ts';
import { withoutReserved } from '../../src/v1/states.ts';

/** What a driver does in place of what it should. `next` is the driver that is right. */
export interface V1Mutation {
  read?(next: V1Device, offset: number, into: Uint8Array): void;
  write?(next: V1Device, offset: number, from: Uint8Array): void;
  reset?(next: V1Device): void;
}

/** A device with one habit of its own; `isMapped`: as its user sees it. */
export function v1Mutant(next: V1Device, mutation: V1Mutation, isMapped = true): V1Device {
  const { read, write, reset } = mutation;
  return {
    regionSize: next.regionSize,
    dataSection: next.dataSection,
    mapped: isMapped ? next.mapped : undefined,
    read: (offset, into) => (read === undefined ? next.read(offset, into) : read(next, offset, into)),
    write: (offset, from) => (write === undefined ? next.write(offset, from) : write(next, offset, from)),
    reset: () => (reset === undefined ? next.reset() : reset(next)),
  };
}

export function stateOf(next: V1Device): number {
  return withoutReserved(new V1RegisterAccess(next).rawDeviceState());
}

export function setState(next: V1Device, state: number): void {
  new V1RegisterAccess(next).setDeviceState(state);
}
