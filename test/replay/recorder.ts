import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import type { DeviceEvent } from '../../src/device/device-event.ts';
import { observe, untimed, type DeviceSink } from '../../src/device/observe.ts';
import type { MigratableDevice, Protocol } from '../../src/device/migratable.ts';
import type { AccessLine, DriverCall, RecordingHeader, RecordingLine } from '../../src/recording/format.ts';
import { deviceCall, lineOf } from '../../src/recording/line.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { recordingHeader } from '../support/recording-header.ts';

/** Makes recordings as `run` does, of what a VMM in this process does to a device. */
export class TestRecorder {
  readonly #lines: RecordingLine[];
  readonly #data: Uint8Array[] = [];
  readonly #keeps: boolean;
  readonly #protocol: Protocol;
  #driver: DriverCall[] = [];
  #kept = 0;
  #offset = 0;

  constructor(
    spec: string,
    { keepData = true, ...header }: Partial<RecordingHeader> & { readonly keepData?: boolean } = {},
  ) {
    this.#keeps = keepData;
    this.#protocol = header.devices?.[0]?.protocol ?? 'v2';
    const devices = [{ name: NAME, device: spec, protocol: 'v2' }] as const;
    this.#lines = [recordingHeader({ present: 'auto', devices, options: { 'data-size': 1 << 20 }, ...header })];
  }

  add(line: RecordingLine): void {
    this.#lines.push(line);
  }

  opened(device = NAME): this {
    this.add({ kind: 'opened', time: 0, device, protocol: this.#protocol, pid: 1, tid: 1 });
    return this;
  }

  /** The driver behind it, whose calls belong to the access that causes them. */
  driver<D extends MigratableDevice>(target: D): D {
    return observe(target, (event) => void this.#driver.push({ time: 0, ...deviceCall(event) }), untimed) as D;
  }

  /** A device of v1 that is recorded; data are where it was said that they lie. */
  v1(device: V1Device, name = NAME): V1Device {
    const { mapped, dataSection } = device;
    const buffer = (size: number): Uint8Array | undefined => {
      const at = this.#offset - dataSection.offset;
      return mapped?.subarray(at, at + size);
    };
    const sink: DeviceSink = (event) => {
      if (event.call !== 'register') return this.#access(name, event, undefined);
      if (event.register === 'data_offset' && event.value !== undefined) this.#offset = event.value;
      const moves = event.register === 'data_size' && event.errno === undefined && event.value > 0;
      return this.#access(name, event, moves ? buffer(event.value) : undefined);
    };
    return observe({ protocol: 'v1', device }, sink, untimed).device;
  }

  v2(device: V2Device, name = NAME): V2Device {
    return observe({ protocol: 'v2', device }, (event, bytes) => this.#access(name, event, bytes), untimed).device;
  }

  #access(device: string, event: DeviceEvent, bytes: Uint8Array | undefined): void {
    const { errno } = event;
    const answer: Pick<AccessLine, 'errno' | 'result'> = errno === undefined ? { result: 0 } : { errno };
    const driver = this.#driver;
    this.#driver = [];
    const line = {
      kind: 'access',
      begin: 0,
      us: 1,
      pid: 1,
      tid: 1,
      device,
      call: deviceCall(event),
      ...answer,
      ...(driver.length > 0 && { driver }),
    } as const;
    this.add(bytes === undefined || bytes.length === 0 ? line : { ...line, data: this.#dataOf(bytes) });
  }

  #dataOf(bytes: Uint8Array): NonNullable<AccessLine['data']> {
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const at = this.#kept;
    this.#data.push(bytes.slice());
    this.#kept += bytes.length;
    return { bytes: bytes.length, sha256, ...(this.#keeps && { at }) };
  }

  /** Ends the recording, and writes its files. */
  write(file: string): string {
    writeFileSync(file, [...this.#lines, { kind: 'end', time: 9, why: 'ended' } as const].map(lineOf).join(''));
    if (this.#keeps) writeFileSync(`${file}.data`, Buffer.concat(this.#data));
    return file;
  }
}

export const NAME = '0000:90:00.0';
