import { VFIO_MIGRATION_PRE_COPY } from '../abi/vfio-v2.ts';
import type { Protocol } from '../device/migratable.ts';
import type { Identity } from '../state-file/identity.ts';

/** What is known of one end of a migration. */
export interface End {
  readonly protocol: Protocol | 'none';
  /** `VFIO_MIGRATION_*`; null of a state file, which does not tell them. */
  readonly migrationFlags: number | null;
  readonly identity: Identity;
  /** Bytes of the state: of a file exactly, of a device as its driver expects; null if that is not known. */
  readonly dataSize: number | null;
  /** Bytes of the largest buffer, and of the data section that one has to fit; null if that is not known, or there is none. */
  readonly largestBuffer: number | null;
  readonly dataSection: number | null;
}

export type Verdict = 'yes' | 'no' | 'unknown';

/** What one thing says about whether the destination takes the state. */
export interface Finding {
  readonly about: 'protocol' | 'identity' | 'driver' | 'flags' | 'size' | 'buffers';
  readonly answer: Verdict;
  readonly why: string;
}

export interface Judgement {
  readonly takes: Verdict;
  readonly findings: readonly Finding[];
}

/**
 * Whether a destination would take a state of the source. A driver that is the same, for a device that is the same, takes it; what the
 * state is for another one to say, nobody knows but that one's driver.
 */
export function judge(source: End, destination: End): Judgement {
  const findings = [
    protocolOf(source, destination),
    ...identityOf(source.identity, destination.identity),
    driverOf(source.identity, destination.identity),
    flagsOf(source, destination),
    sizeOf(source, destination),
    buffersOf(source, destination),
  ].flatMap((finding) => finding ?? []);
  const has = (answer: Verdict): boolean => findings.some((finding) => finding.answer === answer);
  return { takes: has('no') ? 'no' : has('unknown') ? 'unknown' : 'yes', findings };
}

function protocolOf(source: End, destination: End): Finding {
  const about = 'protocol';
  if (destination.protocol === 'none')
    return { about, answer: 'no', why: 'the driver here does not support migration' };
  if (source.protocol === 'none') return { about, answer: 'no', why: 'the driver there does not support migration' };
  if (source.protocol === destination.protocol)
    return { about, answer: 'yes', why: `both drivers speak ${source.protocol}` };
  const why = `the driver there speaks ${source.protocol} and the one here ${destination.protocol}; run translates that, and whether they know each other's state is for them to say`;
  return { about, answer: 'unknown', why };
}

/** Everything that `restore` compares, but the driver. */
function identityOf(source: Identity, destination: Identity): Finding[] {
  const about = 'identity';
  const keys = Object.keys(source).filter((key) => key !== 'driver' && Object.hasOwn(destination, key));
  const others = keys.filter((key) => source[key] !== destination[key]);
  if (others.length > 0) {
    return others.map((key) => {
      const [there, here] = [JSON.stringify(source[key]), JSON.stringify(destination[key])];
      return { about, answer: 'no', why: `${key} is ${there} there and ${here} here` };
    });
  }
  const isKnown = keys.some((key) => key === 'id' || key === 'mdevType');
  const why = isKnown
    ? `the same in ${keys.join(', ')}`
    : 'neither PCI ids nor a type of mediated device are known of both';
  return [{ about, answer: isKnown ? 'yes' : 'unknown', why }];
}

function driverOf({ driver: there }: Identity, { driver: here }: Identity): Finding {
  const about = 'driver';
  if (there === undefined || here === undefined)
    return { about, answer: 'unknown', why: `the driver ${here === undefined ? 'here' : 'there'} is not known` };
  if (there === here) return { about, answer: 'yes', why: `${here}, on both sides` };
  return {
    about,
    answer: 'unknown',
    why: `${there} there and ${here} here: whether it knows that state is for it to say`,
  };
}

/** RESUMING is in every driver. A driver without pre-copy may be an older one, which does not know a stream that begins before the end. */
function flagsOf(source: End, destination: End): Finding | undefined {
  const [there, here] = [source.migrationFlags, destination.migrationFlags];
  if (source.protocol !== 'v2' || destination.protocol !== 'v2') return undefined;
  const about = 'flags';
  if (there === null || here === null || there === here)
    return { about, answer: 'yes', why: there === null ? `not known there, ${here} here` : `${there} on both sides` };
  const lacks = (there & ~here & VFIO_MIGRATION_PRE_COPY) !== 0;
  const why = lacks
    ? `${there} there and ${here} here: a driver without pre-copy may not know the state of one that has it`
    : `${there} there and ${here} here: a destination needs neither P2P nor pre-copy to load`;
  return { about, answer: lacks ? 'unknown' : 'yes', why };
}

/** `MIG_DATA_SIZE` is an estimate: a state that is larger than any here is a hint, and no more. */
function sizeOf(source: End, destination: End): Finding | undefined {
  const [there, here] = [source.dataSize, destination.dataSize];
  if (there === null || here === null) return undefined;
  const about = 'size';
  if (there <= here) return { about, answer: 'yes', why: `${there} bytes there, and ${here} here` };
  return {
    about,
    answer: 'unknown',
    why: `the state there has ${there} bytes, and the driver here expects ${here} of its own`,
  };
}

function buffersOf(source: End, destination: End): Finding | undefined {
  const [there, here] = [source.largestBuffer, destination.dataSection];
  if (there === null || here === null) return undefined;
  const about = 'buffers';
  if (there <= here)
    return { about, answer: 'yes', why: `of ${there} bytes at most, and the data section here has ${here}` };
  const why = `of up to ${there} bytes, and the data section here has ${here}: they come in several transactions, which a driver need not take`;
  return { about, answer: 'unknown', why };
}
