import { existsSync, readFileSync } from 'node:fs';
import type { DeviceCall } from '../../src/recording/format.ts';
import { readRecording } from '../../src/recording/reader.ts';
import { poll } from '../../src/vmm/deadline.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import type { End } from './pair.ts';

/** What `vfio-shim run --record` tells of the drivers. */

/** One call on a driver, by the kernel's words, and its answer: bytes, another number, a state or an errno. */
export interface Asked {
  readonly driver: string;
  readonly answer: number | string;
}

/** The drivers of the lab speak v2. */
function askedBy(event: Extract<DeviceCall, { protocol: 'v2' }>): Asked {
  const { errno } = event;
  switch (event.call) {
    case 'get-state':
      return { driver: 'GET MIG_DEVICE_STATE', answer: errno ?? event.state ?? '' };
    case 'set-state':
      return { driver: `SET MIG_DEVICE_STATE ${event.state}`, answer: errno ?? (event.session ? 'data_fd' : -1) };
    case 'data-size':
      return { driver: 'GET MIG_DATA_SIZE', answer: errno ?? event.bytes ?? 0 };
    case 'precopy-info':
      return { driver: 'precopy info', answer: errno ?? (event.initialBytes ?? 0) + (event.dirtyBytes ?? 0) };
    case 'precopy-info-v2':
      return { driver: 'SET MIG_PRECOPY_INFOv2', answer: errno ?? 0 };
    case 'data':
      return { driver: event.direction === 'out' ? 'read' : 'write', answer: errno ?? event.bytes ?? 0 };
    case 'reset':
      return { driver: 'VFIO_DEVICE_RESET', answer: errno ?? 0 };
  }
}

const fileOf = (bed: TestBed, name: string): string => bed.path(`${name}.jsonl`);

/** The same end, which then writes down what the drivers of its devices are asked: for askedOf(), by this name. */
export function traced(bed: TestBed, end: End, name: string): End {
  if (end.shim === undefined) throw new Error('a native end has no recording');
  return { ...end, shim: [...end.shim, '--record', fileOf(bed, name)] };
}

/** What drivers were asked until now, in order. */
export function askedOf(bed: TestBed, name: string): Asked[] {
  const file = fileOf(bed, name);
  if (!existsSync(file)) return [];
  const bytes = readFileSync(file);
  if (bytes.length === 0) return [];
  return [...readRecording([bytes])].flatMap((entry) => {
    if (entry.kind === 'driver') return askedOnce(entry.call);
    if (entry.kind !== 'access') return [];
    return (entry.driver ?? []).flatMap((call) =>
      Array.from({ length: call.times ?? 1 }, () => askedOnce(call)).flat(),
    );
  });
}

function askedOnce(call: DeviceCall): Asked[] {
  return call.protocol === 'v2' ? [askedBy(call)] : [];
}

/** Waits until a driver was asked for something. */
export async function waitForAsked(bed: TestBed, name: string, what: string): Promise<void> {
  const found = (): true | undefined => (askedOf(bed, name).some(({ driver }) => driver === what) ? true : undefined);
  await poll(found, 20_000, () => `${name}: ${what}, the driver was asked ${JSON.stringify(askedOf(bed, name))}`);
}
