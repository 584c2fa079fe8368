import { errnoName } from '../../abi/errno.ts';
import { DEVICE_EVENTS_VERSION, type DeviceEvent } from '../../device/device-event.ts';
import { microseconds } from '../../device/observe.ts';
import { Outlet } from '../../sys/outlet.ts';
import { ANSWERED, CONTINUE, type Call } from '../trap/call.ts';
import { warn } from '../run/log.ts';

/**
 * `--trace`: a line of JSON for each trapped call that was not left to the kernel, and for each call on a driver of the kernel. Both
 * have the clock and the version of device events. A trace that has lost lines would be misread: the first that cannot be written ends
 * it.
 */
export class Trace {
  #outlet: Outlet | undefined;

  /** `fd`: the file, opened for appending. */
  constructor(fd: number) {
    this.#outlet = new Outlet(fd);
  }

  write(call: Call, value: number, error: number): void {
    if (value === CONTINUE || this.#outlet === undefined) return;
    const args = [0, 1, 2, 3, 4, 5].map((n) => `0x${call.arg(n).toString(16)}`);
    const result = value === ANSWERED ? 'fd' : value;
    this.#line({ time: microseconds(), tid: call.tid, nr: call.nr, args, value: result, error });
  }

  /** A call on the driver of a bridged device, while a trapped call was served. */
  device(device: string, event: DeviceEvent): void {
    this.#line({ device, ...event });
  }

  #line(entry: object): void {
    const line = Buffer.from(`${JSON.stringify({ version: DEVICE_EVENTS_VERSION, ...entry })}\n`);
    const written = this.#outlet?.write(line) ?? line.length;
    if (written === line.length) return;
    this.#outlet = undefined;
    const why = written < 0 ? (errnoName(-written) ?? `errno ${-written}`) : `${written} of ${line.length} bytes fit`;
    warn(`--trace: the file cannot be written (${why}), nothing more is traced`);
  }
}
