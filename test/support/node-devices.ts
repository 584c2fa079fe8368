import type { NodeDevice } from '../../src/interpose/emulated/node-device.ts';
import { createSim } from '../../src/sim/create.ts';
import { parseSpec } from '../../src/sim/spec.ts';
import type { OwnedFd } from '../../src/sys/fd.ts';
import { createSharedMemory } from '../../src/sys/memory.ts';

/** Devices as nodes know them, 0000:90:00.0 and on, each with a file of its own and one of its group, which are returned too. */
export function nodeDevices(
  count: number,
  opened: (device: number) => void,
): { devices: NodeDevice[]; files: OwnedFd[] } {
  const files = Array.from({ length: 2 * count }, (_, n) => createSharedMemory(`test-${n}`, 4096));
  const number = (n: number): number => files[n]?.number ?? -1;
  const devices = Array.from({ length: count }, (_, n) => ({
    name: `0000:9${n}:00.0`,
    driver: { files: { device: number(2 * n), group: number(2 * n + 1) }, sim: createSim(parseSpec('qat')) },
    opened: () => opened(n),
  }));
  return { devices, files };
}
