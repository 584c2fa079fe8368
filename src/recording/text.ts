import type { AccessLine, DeviceCall, DriverCall, RecordedCall, RecordingHeader, VfioCall } from './format.ts';
import type { RecordingEntry } from './reader.ts';
import type { LoopSummary } from './summary.ts';

/** Prints the lines of a recording for people, as strace(1) prints system calls: a line each, with its end. */
export class TraceText {
  /** From the monotonic clock to the time of day, in microseconds. */
  #offset = 0;

  /** A line of the recording, or a loop. The header comes first: times are of the day once it is known. */
  lineOf(entry: RecordingEntry | LoopSummary): string {
    return `${this.#textOf(entry)}\n`;
  }

  #textOf(entry: RecordingEntry | LoopSummary): string {
    switch (entry.kind) {
      case 'recording':
        this.#offset = entry.realtime - entry.monotonic;
        return headerText(entry);
      case 'access':
        return this.#line(entry.begin, idOf(entry), subjectOf(entry), accessText(entry));
      case 'loop':
        return this.#line(entry.begin, '', entry.device, loopText(entry));
      case 'driver':
        return this.#line(entry.time, '', entry.device, `driver: ${driverText(entry.call)}`);
      case 'opened':
        return this.#line(entry.time, idOf(entry), entry.device, `opened, its driver speaks ${entry.protocol}`);
      case 'closed':
        return this.#line(entry.time, '', entry.device, 'closed');
      case 'takeover':
        return this.#line(entry.time, '', '', `the supervisor died (${printable(entry.why)}), another takes over`);
      case 'end':
        return this.#line(entry.time, '', '', ENDS[entry.why]);
      case 'cut':
        return `line ${entry.line} is cut after ${entry.bytes} bytes, and was dropped: the recording goes no further`;
    }
  }

  #line(time: number, id: string, subject: string, text: string): string {
    return `${this.#clock(time)} ${id.padEnd(9)} ${printable(subject).padEnd(12)} ${text}`;
  }

  /** The time of day, UTC, to a microsecond. */
  #clock(time: number): string {
    const at = time + this.#offset;
    const seconds = Math.floor(at / 1e6) % 86_400;
    const parts = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map((n) =>
      String(Math.floor(n)).padStart(2, '0'),
    );
    return `${parts.join(':')}.${String(Math.floor(at % 1e6)).padStart(6, '0')}`;
  }
}

const ENDS = {
  ended: 'ended',
  limit: 'the limit of the recording is reached, nothing more was recorded',
  lost: 'lines were lost, as nobody took them in time: nothing more was recorded',
} as const;

/** A JavaScript date goes no further, in milliseconds. */
const LAST_DATE = 8.64e15;

function headerText({ program, command, host, realtime, present, devices }: RecordingHeader): string {
  const when = realtime / 1000 <= LAST_DATE ? new Date(realtime / 1000).toISOString() : `${realtime} us`;
  const shown = present === null ? '' : ` --present ${printable(present)}`;
  const named = devices.map(
    ({ name, device, protocol }) => `; ${printable(name)} is ${printable(device)} (${protocol})`,
  );
  return `vfio-shim ${printable(program)} ${command}${shown} on ${printable(host)}, ${when}${named.join('')}`;
}

function idOf({ pid, tid }: Pick<AccessLine, 'pid' | 'tid'>): string {
  return pid === null || pid === tid ? `[${tid}]` : `[${pid}/${tid}]`;
}

function subjectOf({ device, node }: AccessLine): string {
  return device ?? node ?? '';
}

function accessText(line: AccessLine): string {
  const { call, result, errno, us, retries, again, data, driver = [], driverOmitted } = line;
  const parts = [
    `${callText(call)} = ${errno ?? result}`,
    `<${duration(us)}>`,
    retries === undefined ? '' : `tried ${retries + 1} times`,
    again === true ? 'begun by the supervisor before' : '',
    data === undefined ? '' : `data: ${size(data.bytes)} sha256 ${data.sha256.slice(0, 16)}`,
    driver.length === 0 ? '' : `driver: ${driver.map(driverCallText).join(', ')}`,
    driverOmitted === undefined ? '' : `and ${driverOmitted} more`,
  ];
  return parts.filter((part) => part !== '').join(' ');
}

function loopText({ accesses, buffers, bytes, direction, us }: LoopSummary): string {
  const what = direction === undefined ? 'no data' : `${size(bytes)} ${direction} in ${buffers} buffers`;
  return `${accesses} accesses moved ${what} <${duration(us)}>`;
}

function driverCallText(call: DriverCall): string {
  const { device, times } = call;
  const whose = device === undefined ? '' : `${printable(device)} `;
  return `${whose}${driverText(call)}${times === undefined ? '' : ` (${times} times)`}`;
}

/** With the answer, as nothing else shows it. */
function driverText(call: DeviceCall): string {
  const { errno } = call;
  return errno === undefined ? callText(call) : `${callText(call)} = ${errno}`;
}

/** A call, with what it has returned. */
export function callText(call: RecordedCall): string {
  return call.protocol === 'vfio' ? vfioText(call) : deviceText(call);
}

function vfioText(asked: VfioCall): string {
  const { call, request, feature, region, offset, bytes, data } = asked;
  if (region !== undefined && data !== undefined) {
    const arrow = isWrite(asked) ? '<-' : '->';
    return `${printable(region)}+0x${(offset ?? 0).toString(16)} ${arrow} ${printable(data)}`;
  }
  const parts = [
    request ?? call,
    feature === undefined ? '' : printable(feature),
    bytes === undefined ? '' : `of ${size(bytes)}`,
    region === undefined ? '' : `of ${printable(region)}`,
    offset === undefined ? '' : `at ${offset}`,
  ];
  return parts.filter((part) => part !== '').join(' ');
}

function isWrite({ call, request }: VfioCall): boolean {
  return call.startsWith('pwrite') || request === 'VFIO_USER_REGION_WRITE';
}

function deviceText(call: DeviceCall): string {
  switch (call.call) {
    case 'register': {
      const arrow = `${call.register} ${call.access === 'write' ? '<-' : '->'}`;
      return call.value === undefined ? arrow : `${arrow} ${valueText(call, call.value)}`;
    }
    case 'get-state':
      return call.state === undefined ? 'GET state' : `GET state -> ${call.state}`;
    case 'set-state':
      return `SET ${call.state}${call.session === true ? ' -> data_fd' : ''}`;
    case 'data-size':
      return call.bytes === undefined ? 'GET data size' : `GET data size -> ${size(call.bytes)}`;
    case 'precopy-info': {
      if (call.initialBytes === undefined) return 'precopy info';
      const reinit = call.reinit === true ? ', reinit' : '';
      return `precopy info -> initial ${size(call.initialBytes)}, dirty ${size(call.dirtyBytes)}${reinit}`;
    }
    case 'precopy-info-v2':
      return 'SET precopy info v2';
    case 'data': {
      const verb = call.direction === 'out' ? 'read data' : 'write data';
      return call.bytes === undefined ? verb : `${verb} ${size(call.bytes)}`;
    }
    case 'other':
      return `${call.access} of ${size(call.bytes)} at ${call.offset}`;
    case 'reset':
      return 'reset';
  }
}

/** A state by its name, a count of bytes with its unit, another number as it is. */
function valueText({ register, state }: Extract<DeviceCall, { call: 'register' }>, value: number): string {
  if (state?.startsWith('(') === false) return `${value} (${state})`;
  return SIZES.has(register) ? size(value) : String(value);
}

/** The registers that count bytes, in any generation. */
const SIZES: ReadonlySet<string> = new Set([
  'pending_bytes',
  'data_size',
  'pending_precopy_only',
  'pending_compatible',
  'pending_postcopy_only',
  'pending_threshold_size',
]);

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** Bytes with their unit: 100 B, 16 KiB, 1.5 MiB. */
export function size(bytes: number): string {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), UNITS.length - 1);
  return `${rounded(bytes / 1024 ** power)} ${UNITS[power]}`;
}

/** Microseconds with their unit: 8 us, 4.1 ms, 1.5 s. */
export function duration(us: number): string {
  if (us < 1000) return `${us} us`;
  return us < 1e6 ? `${rounded(us / 1e3)} ms` : `${rounded(us / 1e6)} s`;
}

function rounded(n: number): string {
  return String(Math.round(n * 10) / 10);
}

/** A name from a recording for a terminal, which it must tell nothing. */
export function printable(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are what is replaced
  return text.replaceAll(/[\u0000-\u001F\u007F-\u009F]/g, '\uFFFD');
}
