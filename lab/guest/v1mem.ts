import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { regionInfo } from '../../src/vfio/client/device-info.ts';
import type { VfioPort } from '../../src/vfio/port.ts';
import { Mdev } from './mdev.ts';

/** How a driver gives its data: by reads and writes of the section, or by mapped memory and by nothing else. */
export type V1Data = 'accessed' | 'mapped';

const TYPES: Readonly<Record<V1Data, string>> = { accessed: 'v1mem-1', mapped: 'v1mem-mapped' };

const PARAMETERS = '/sys/module/v1mem/parameters';

export const BAR_SIZE = 8192;

/** A device of v1mem (lab/image/v1mem.c), which speaks v1; its BAR 0 is memory. */
export class V1Mem extends Mdev {
  readonly data: V1Data;

  constructor(data: V1Data = 'accessed') {
    super('v1mem', TYPES[data]);
    this.data = data;
  }

  /** How often its data section was mapped, and how often a mapping of it touched for the first time. */
  mapped(): { readonly maps: number; readonly faults: number } {
    const count = (name: string): number => Number(readFileSync(join(this.sysfs, 'v1mem', name), 'utf8'));
    return { maps: count('maps'), faults: count('faults') };
  }

  /** How the driver's devices are from now on: the milliseconds that each buffer takes, and how often stop-and-copy has the whole state. */
  static set(delayMs: number, records = 1): void {
    for (const [name, value] of Object.entries({ delay_ms: delayMs, records, most_busy: 0 })) {
      writeFileSync(join(PARAMETERS, name), String(value));
    }
  }

  /** How many devices have taken their time at once since set(). */
  static mostBusy(): number {
    return Number(readFileSync(join(PARAMETERS, 'most_busy'), 'utf8'));
  }

  /** What BAR 0 holds while nobody uses the device. */
  bar(): Buffer {
    const bytes = Buffer.alloc(BAR_SIZE);
    this.#access('read', bytes);
    return bytes;
  }

  fillBar(bytes: Uint8Array): void {
    this.#access('write', bytes);
  }

  #access(call: keyof Pick<VfioPort, 'read' | 'write'>, bytes: Uint8Array): void {
    using opened = openKernelDevice(`${this.group}:${this.uuid}`);
    const region = regionInfo(opened.port, 0);
    const moved = region && opened.port[call](region, 0, bytes);
    if (moved !== bytes.length) throw new Error(`BAR 0: ${call} of ${bytes.length} bytes: ${moved}`);
  }
}
