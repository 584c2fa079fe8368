import { createHash } from 'node:crypto';
import type { ErrnoName } from '../../abi/errno.ts';
import type { DeviceEvent, Direction } from '../../device/device-event.ts';
import { microseconds } from '../../device/observe.ts';
import { REPORT_SIZE, ReportCounter } from '../../interpose/serve/report.ts';
import { addDriverCall, type DriverCalls } from '../../recording/driver-calls.ts';
import type { RecordingLine } from '../../recording/format.ts';
import { callText } from '../../recording/line.ts';
import type { V1Device } from '../../v1/device.ts';
import { bufferIn } from '../../v1/region.ts';
import type { Message } from '../wire/message.ts';
import { MessageDecoder, type Answer, type Decoded, type Seen } from './decode.ts';

/** Where the lines of a recording go. */
export interface LineSink {
  /** Takes a line, with its end. It does not throw. */
  add(line: string): void;
  /** Keeps bytes of migration data, if they are wanted: where they begin in the file for that. */
  keep(bytes: Uint8Array): number | undefined;
  /** Does what is due, and returns when to ask again, by `performance.now()`. */
  work(now: number): number;
}

/** What a client is connected to. */
export interface Recorded extends Omit<Seen, 'isShared'> {
  /** What the device itself speaks; `undefined` if it does not migrate. */
  readonly driver: 'v1' | 'v2' | undefined;
  /** The migration region that is shown, if it is ours: its buffers lie in memory of this process. */
  readonly section: Pick<V1Device, 'mapped' | 'dataSection'> | undefined;
}

/** A command that is not answered yet. */
interface Open {
  readonly message: Pick<Message, 'command' | 'body'>;
  readonly begin: number;
  readonly driver: DriverCalls[];
  omitted: number;
  isForwarded: boolean;
}

const NOTHING = new Uint8Array(0);

/** Makes a line of each command of a client, with the calls on the driver that it causes. Nothing here fails a command. */
export class MessageRecorder {
  readonly #sink: LineSink;
  /** The device's name, in JSON. */
  readonly #device: string;
  #client: Recorded | undefined;
  #decoder: MessageDecoder | undefined;
  #counter: ReportCounter | undefined;
  #pid = 0;
  #open: Open | undefined;

  constructor(device: string, sink: LineSink) {
    this.#device = JSON.stringify(device);
    this.#sink = sink;
  }

  /** A client has a device from now on. `pid`: its process, 0 if that cannot be told. */
  connected(client: Recorded, pid: number): void {
    this.#client = client;
    this.#decoder = new MessageDecoder({ ...client, isShared: client.section?.mapped !== undefined });
    this.#counter = new ReportCounter(new Uint8Array(REPORT_SIZE), client.driver ?? 'v2');
    this.#pid = pid;
    if (client.driver === undefined) return;
    this.#line('opened', `"time":${microseconds()},"device":${this.#device},"protocol":"${client.driver}"${this.#who}`);
  }

  /** A command that is open is not answered any more. */
  lost(): void {
    this.#answered({ body: NOTHING, fds: 0, errno: 'ECONNRESET' });
  }

  disconnected(): void {
    if (this.#client === undefined) return;
    this.#client = undefined;
    this.#line('closed', `"time":${microseconds()},"device":${this.#device}`);
  }

  begin(message: Pick<Message, 'command' | 'body'>): void {
    this.#open = { message, begin: microseconds(), driver: [], omitted: 0, isForwarded: false };
  }

  /** The command goes to the server as it is: what it is there it is to the client. */
  forwarded(): void {
    if (this.#open !== undefined) this.#open.isForwarded = true;
  }

  answered(body: Uint8Array, fds: number): void {
    this.#answered({ body, fds, errno: undefined });
  }

  refused(errno: ErrnoName): void {
    this.#answered({ body: NOTHING, fds: 0, errno });
  }

  /** A call on the driver: for the command that is open, or for none. */
  driver(event: DeviceEvent): void {
    const open = this.#open;
    if (open === undefined) {
      this.#line('driver', `"time":${event.time},"device":${this.#device},"call":{${callText(event)}}`);
      return;
    }
    if (!addDriverCall(open.driver, this.#device, event)) open.omitted += 1;
  }

  #answered(answer: Answer): void {
    const open = this.#open;
    const decoder = this.#decoder;
    this.#open = undefined;
    if (open === undefined || decoder === undefined) return;
    const now = microseconds();
    const decoded = decoder.decode(open.message, answer, now);
    const { event } = decoded;
    if (open.isForwarded && event !== undefined) open.driver.push({ device: this.#device, first: event, times: 1 });
    this.#line('access', this.#accessText(open, decoded, answer, now));
  }

  #accessText({ begin, driver, omitted }: Open, decoded: Decoded, { errno }: Answer, now: number): string {
    const { event, call, result, asked } = decoded;
    const what = event === undefined ? JSON.stringify(call).slice(1, -1) : callText(event);
    return [
      `"begin":${begin},"us":${Math.max(0, now - begin)}${this.#who},"device":${this.#device},"call":{${what}}`,
      errno === undefined ? `"result":${JSON.stringify(result)}` : `"errno":"${errno}"`,
      ...(event === undefined || errno !== undefined ? [] : this.#data(event, decoded.bytes)),
      ...(asked === undefined ? [] : [`"asked":${asked}`]),
      ...(driver.length === 0 ? [] : [`"driver":[${driver.map(driverText).join(',')}]`]),
      ...(omitted === 0 ? [] : [`"driverOmitted":${omitted}`]),
    ].join(',');
  }

  /** What has moved, and what it was. In v1 it is known by its size, and lies in the section if that is ours. */
  #data(event: DeviceEvent, bytes: Uint8Array | undefined): string[] {
    const direction = this.#counter?.ofVmm(event);
    const count = event.call === 'register' ? (event.value ?? 0) : (bytes?.length ?? 0);
    const passed = event.call === 'register' ? this.#bufferOf(direction, count) : bytes;
    return [
      ...(direction === undefined ? [] : [`"moved":{"direction":"${direction}","bytes":${count}}`]),
      ...(passed === undefined || passed.length === 0 ? [] : [`"data":${this.#dataText(passed)}`]),
    ];
  }

  #bufferOf(direction: Direction | undefined, length: number): Uint8Array | undefined {
    const section = this.#client?.section;
    if (direction === undefined || section === undefined) return undefined;
    return bufferIn(section, this.#counter?.counts.data_offset ?? 0, length);
  }

  #dataText(bytes: Uint8Array): string {
    const at = this.#sink.keep(bytes);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    return `{"bytes":${bytes.length},"sha256":"${sha256}"${at === undefined ? '' : `,"at":${at}`}}`;
  }

  get #who(): string {
    return `,"pid":${this.#pid === 0 ? 'null' : this.#pid},"tid":${this.#pid}`;
  }

  #line(kind: RecordingLine['kind'], fields: string): void {
    this.#sink.add(`{"kind":"${kind}",${fields}}\n`);
  }
}

function driverText({ first, times }: DriverCalls): string {
  return `{"time":${first.time},${callText(first)}${times > 1 ? `,"times":${times}` : ''}}`;
}
