import { errnoNumber, type ErrnoName } from '../abi/errno.ts';
import { ShimError } from '../error.ts';

export const DRIVERS = ['qat', 'mtty', 'pds', 'hisi', 'vendor-v1'] as const;
export type DriverName = (typeof DRIVERS)[number];

/** The n-th (from 1) read or write of data, or entry into a state, fails with an errno; `fatal` puts the device into ERROR. */
export interface Fault {
  readonly step: string;
  readonly nth: number;
  readonly errno: ErrnoName;
  readonly fatal: boolean;
}

/** A simulated device, as `--device` describes it. */
export interface SimSpec {
  readonly driver: DriverName;
  /** Guest-visible memory in bytes: BAR0, and all of it migrates. */
  readonly size: number;
  /** Fills the memory with a pattern of this number; 0 leaves it zero. */
  readonly seed: number;
  /** Devices of different compatibility numbers refuse each other's state. */
  readonly compat: number;
  /** The version of the state's format; a lower one refuses a higher one. */
  readonly version: number;
  readonly faults: readonly Fault[];
  /** The most bytes that one read or write of the data moves; 0 is no limit. */
  readonly short: number;
  /** How often each read or write of the data says "not yet" before it happens. */
  readonly block: number;
  /** vendor-v1: pages that the device itself dirties with every buffer in pre-copy. */
  readonly dirty: number;
  /** vendor-v1: bytes of its data section. */
  readonly section: number;
  /** vendor-v1: refuses transactions that are not the source's. */
  readonly strict: boolean;
  /** vendor-v1: has the habits of libvfio-user's v1 servers. */
  readonly libvfio: boolean;
  /** mtty: number of ports. */
  readonly ports: number;
}

const defaults: Record<DriverName, Partial<SimSpec>> = {
  qat: { size: 64 * 1024 },
  mtty: { size: 8 },
  pds: { size: 64 * 1024 },
  hisi: { size: 64 * 1024 },
  'vendor-v1': { size: 1024 * 1024, section: 1024 * 1024 },
};

type OptionKey = Exclude<keyof SimSpec, 'driver' | 'faults'> | 'fault';
const options: Readonly<Record<OptionKey, string>> = {
  size: 'bytes of guest-visible memory, e.g. 64K, 256M, 1G',
  seed: 'a number: the memory begins with its pattern (default 0: zeros)',
  compat: 'a number: only equal ones accept each other (default 1)',
  version: 'a number: the version of the state format (default 1)',
  fault: 'STEP@N:ERRNO[!], STEP is read, write or a state such as STOP_COPY; ! leaves the device in ERROR',
  short: 'the most bytes that one read or write moves',
  block: 'how often each read or write says "not yet" first',
  dirty: 'vendor-v1: pages dirtied with every buffer in pre-copy',
  section: 'vendor-v1: bytes of the data section',
  strict: "vendor-v1: 1 refuses transactions that are not the source's",
  libvfio:
    "vendor-v1: 1 has the habits of libvfio-user's v1 servers: no 0 to 2, 0 to 4, 4 to 0; pending_bytes is 1 or 0",
  ports: 'mtty: 1 or 2',
};

/** The drivers and options of a SPEC, for help texts. */
export function specHelp(): string {
  const width = Math.max(...Object.keys(options).map((key) => key.length));
  const lines = Object.entries(options).map(([key, text]) => `  ${key.padEnd(width)}  ${text}`);
  return `SPEC is DRIVER[,OPTION=VALUE]...\nDRIVER: ${DRIVERS.join(', ')}\n${lines.join('\n')}`;
}

/** Parses a SPEC such as `qat,size=256M,fault=read@3:EIO`. Throws `ERR_SPEC` naming what is wrong. */
export function parseSpec(text: string): SimSpec {
  const [driver = '', ...parts] = text.split(',');
  if (!isDriver(driver)) throw bad(text, `no driver ${JSON.stringify(driver)}; there are ${DRIVERS.join(', ')}`);
  const numbers: Partial<Record<OptionKey, number>> = {};
  const faults: Fault[] = [];
  for (const part of parts) {
    const at = part.indexOf('=');
    const key = at < 0 ? part : part.slice(0, at);
    const value = at < 0 ? '' : part.slice(at + 1);
    if (!Object.hasOwn(options, key))
      throw bad(text, `no option ${JSON.stringify(key)}; there are ${Object.keys(options).join(', ')}`);
    if (key === 'fault') faults.push(parseFault(text, value));
    else if (Object.hasOwn(numbers, key)) throw bad(text, `${key} is given twice`);
    else numbers[key as OptionKey] = parseSize(value, (why) => bad(text, `${key}=${value} ${why}`));
  }
  const { strict = 0, libvfio = 0, ...others } = numbers;
  for (const [key, value] of Object.entries({ strict, libvfio })) {
    if (value > 1) throw bad(text, `${key}=${value} is neither 0 nor 1`);
  }
  const spec: SimSpec = {
    driver,
    size: 4096,
    seed: 0,
    compat: 1,
    version: 1,
    short: 0,
    block: 0,
    dirty: 0,
    section: 0,
    ports: 1,
    ...defaults[driver],
    ...others,
    faults,
    strict: strict === 1,
    libvfio: libvfio === 1,
  };
  checkRanges(text, spec);
  return spec;
}

function checkRanges(text: string, spec: SimSpec): void {
  const limit = 2 ** 40;
  if (spec.driver === 'mtty' && spec.size !== 8) throw bad(text, 'the memory of mtty is its 8 registers');
  if (spec.size < 1 || spec.size > limit) throw bad(text, `size=${spec.size} is not within 1 and ${limit}`);
  if (spec.driver === 'vendor-v1') {
    const { section } = spec;
    if (section < 8192 || section % 4096 !== 0 || section > 2 ** 30) {
      throw bad(text, `section=${section} is not a multiple of 4096 within 8192 and ${2 ** 30}`);
    }
  } else if (spec.section !== 0 || spec.dirty !== 0 || spec.strict || spec.libvfio) {
    throw bad(text, 'section, dirty, strict and libvfio are options of vendor-v1');
  }
  if (spec.ports !== 1 && (spec.driver !== 'mtty' || spec.ports !== 2))
    throw bad(text, `ports=${spec.ports}: mtty has 1 or 2, the others have none`);
  for (const key of ['seed', 'compat', 'version', 'block', 'dirty'] as const) {
    if (spec[key] >= 2 ** 32) throw bad(text, `${key}=${spec[key]} does not fit 32 bits`);
  }
}

/** A count with an optional unit: K, M, G, T (powers of 1024). `error` gets what is wrong with one that is none. */
export function parseSize(text: string, error: (why: string) => Error): number {
  const match = /^(\d+)([KMGT]?)$/i.exec(text);
  if (match === null) throw error('is not a whole number from 0 on, with K, M, G or T behind it or nothing');
  const scale = 1024 ** ['', 'K', 'M', 'G', 'T'].indexOf((match[2] ?? '').toUpperCase());
  const value = Number(match[1]) * scale;
  if (!Number.isSafeInteger(value)) throw error('is too large');
  return value;
}

/** What a fault can strike. */
export const STEPS: readonly string[] = [
  'read',
  'write',
  'STOP',
  'RUNNING',
  'STOP_COPY',
  'RESUMING',
  'RUNNING_P2P',
  'PRE_COPY',
  'PRE_COPY_P2P',
];

function parseFault(spec: string, text: string): Fault {
  const match = /^([A-Za-z_0-9]+)@(\d{1,9}):([A-Z0-9]+)(!?)$/.exec(text);
  const [, step = '', nth = '', errno = '', fatal = ''] = match ?? [];
  if (match === null || !STEPS.includes(step) || Number(nth) < 1) {
    throw bad(spec, `fault=${text} is not STEP@N:ERRNO[!] with STEP one of ${STEPS.join(', ')}`);
  }
  if (errnoNumber(errno as ErrnoName) === undefined) throw bad(spec, `no errno ${errno}`);
  return { step, nth: Number(nth), errno: errno as ErrnoName, fatal: fatal === '!' };
}

function isDriver(name: string): name is DriverName {
  return (DRIVERS as readonly string[]).includes(name);
}

function bad(text: string, why: string): ShimError {
  return new ShimError('ERR_SPEC', `device ${JSON.stringify(text)}: ${why}`, { errno: 'EINVAL' });
}
