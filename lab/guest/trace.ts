import { existsSync, readFileSync } from 'node:fs';
import { poll } from '../../src/vmm/deadline.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import type { End } from './pair.ts';

/** What `vfio-shim run --trace` tells of the drivers. */

/** One call on a driver, and its answer: bytes, another number, a state or an errno. */
export interface Asked {
  /** The name of the device. */
  readonly device: string;
  readonly driver: string;
  readonly answer: number | string;
}

const fileOf = (bed: TestBed, name: string): string => bed.path(`${name}.trace`);

/** An end that writes down what the drivers of its devices are asked, where it is started under this name. */
export function traced(bed: TestBed, end: End, name: string): End {
  if (end.shim === undefined) throw new Error('a native end has no trace');
  return { ...end, shim: [...end.shim, '--trace', fileOf(bed, name)] };
}

/** What drivers were asked until now, in order. */
export function askedOf(bed: TestBed, name: string): Asked[] {
  const file = fileOf(bed, name);
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1); // without one that is being written
  return lines.map((line) => JSON.parse(line) as Partial<Asked>).filter((line): line is Asked => 'driver' in line);
}

/** Waits until a driver was asked for something. */
export async function waitForAsked(bed: TestBed, name: string, what: string): Promise<void> {
  const found = (): true | undefined => (askedOf(bed, name).some(({ driver }) => driver === what) ? true : undefined);
  await poll(found, 20_000, () => `${name}: ${what}, the driver was asked ${JSON.stringify(askedOf(bed, name))}`);
}
