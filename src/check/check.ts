import type { MigratableDevice } from '../device/migratable.ts';
import { recover } from '../device/migratable.ts';
import { ShimError } from '../error.ts';
import type { DmaLog } from '../vfio/dma-log.ts';
import type { Deviation } from './deviations.ts';
import { NotTried, reasonOf, type Rule, type RuleText } from './rule.ts';
import { v1Rules } from './v1/index.ts';
import { V1Subject } from './v1/subject.ts';
import { v2Rules } from './v2/index.ts';
import { V2Subject } from './v2/subject.ts';

/** What became of a rule. `deviates`: it is broken, and known to be. */
export type Verdict = 'kept' | 'broken' | 'deviates' | 'not tried';

/** What became of one rule. */
export interface Result extends RuleText {
  readonly verdict: Verdict;
  /** By what it is broken, or why it was not tried. */
  readonly why?: string;
  /** It was not tried as the device failed on the way, so what it says is open. */
  readonly isFailure?: true;
  /** It was not tried as the device was gone by then, and could not be opened again: a server that ends with its first client, say. */
  readonly isGone?: true;
  /** The deviation that it is. */
  readonly deviation?: Deviation;
}

type Outcome = Omit<Result, keyof RuleText>;

/** A device with what there is beside its migration. */
export interface CheckedDevice {
  readonly migratable: MigratableDevice;
  /** Its log of DMA, if it has one. */
  readonly dmaLog?: DmaLog | undefined;
}

/** Options of checkDevice() and checkSteps(). */
export interface CheckOptions {
  /** Rules that the driver is known to break. */
  readonly deviations?: readonly Deviation[];
  /**
   * Closes the device and opens it again: some come to RUNNING in no other way. If it throws a `ShimError` the device is gone, and nothing
   * more is asked of it.
   */
  readonly reopen?: () => CheckedDevice;
}

/** What a check comes to. */
export interface Conclusion {
  readonly results: readonly Result[];
  /** No rule is broken, apart from deviations. */
  readonly conforms: boolean;
  /** Deviations that were tried, and did not happen. */
  readonly absent: readonly Deviation[];
}

interface Subject {
  begin(): void;
}

/** The rules that are tried on a device of this protocol, in order. Throws `ERR_FEATURE_UNSUPPORTED` for a draft. */
export function rulesFor(protocol: MigratableDevice['protocol']): readonly RuleText[] {
  if (protocol === 'v2') return v2Rules;
  if (protocol === 'v1') return v1Rules;
  throw notCovered(protocol);
}

function notCovered(protocol: string): ShimError {
  return new ShimError(
    'ERR_FEATURE_UNSUPPORTED',
    `check: its driver speaks ${protocol}, a proposal before v1, of which no kernel had rules: v1 and v2 are checked`,
    { errno: 'ENOTTY' },
  );
}

/**
 * Tries each rule of the protocol on a device that nobody else uses: it is stopped, saved, loaded and reset many times, and runs at the
 * end. Throws `ERR_FEATURE_UNSUPPORTED` for a draft, and what recover() throws if the device does not run at the end.
 */
export function checkDevice(device: CheckedDevice, options: CheckOptions = {}): Conclusion {
  const steps = checkSteps(device, options);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** The same, a result at a time: whoever takes no more has the device run again. */
export function checkSteps(
  device: CheckedDevice,
  options: CheckOptions = {},
): Generator<Result, Conclusion, undefined> {
  const { protocol } = device.migratable;
  if (protocol === 'v2') return tryAll(device, v2Rules, v2Subject, options);
  if (protocol === 'v1') return tryAll(device, v1Rules, v1Subject, options);
  throw notCovered(protocol);
}

function v2Subject({ migratable, dmaLog }: CheckedDevice): V2Subject {
  if (migratable.protocol !== 'v2') throw new TypeError('no v2 device');
  return new V2Subject(migratable.device, dmaLog);
}

function v1Subject({ migratable }: CheckedDevice): V1Subject {
  if (migratable.protocol !== 'v1') throw new TypeError('no v1 device');
  return new V1Subject(migratable.device);
}

function* tryAll<S extends Subject>(
  opened: CheckedDevice,
  rules: readonly Rule<S>[],
  subjectOf: (device: CheckedDevice) => S,
  { deviations = [], reopen }: CheckOptions,
): Generator<Result, Conclusion, undefined> {
  let device = opened;
  let subject = subjectOf(device);
  let gone: Outcome | undefined;
  const begin = (): void => {
    try {
      subject.begin();
    } catch (error) {
      if (reopen === undefined) throw error;
      device = orGone(reopen, error);
      subject = subjectOf(device);
      subject.begin();
    }
  };
  const results: Result[] = [];
  try {
    for (const rule of rules) {
      const deviation = deviations.find(({ rule: id }) => id === rule.id);
      const outcome = gone ?? verdictOn(rule, begin, () => subject, deviation);
      if (outcome.isGone === true) gone = outcome;
      const result = { ...textOf(rule), ...outcome };
      results.push(result);
      yield result;
    }
  } finally {
    if (gone === undefined) runAtLast(() => device, begin);
  }
  return conclude(results, deviations);
}

function runAtLast(device: () => CheckedDevice, begin: () => void): void {
  try {
    begin();
  } catch (error) {
    if (error instanceof Gone) throw new ShimError('ERR_DEVICE', `check: ${error.message}`, { errno: 'ENODEV' });
    recover(device().migratable, 'reset');
  }
}

/** The device was closed, and could not be opened again. */
class Gone extends Error {}

function orGone(reopen: () => CheckedDevice, failure: unknown): CheckedDevice {
  try {
    return reopen();
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    const why = `${reasonOf(failure)}; it cannot be opened again: ${reasonOf(error)}`;
    throw new Gone(`the device is gone: ${why}`);
  }
}

function textOf({ id, sentence, source }: RuleText): RuleText {
  return { id, sentence, source };
}

function verdictOn<S>(rule: Rule<S>, begin: () => void, subject: () => S, deviation: Deviation | undefined): Outcome {
  try {
    begin();
  } catch (error) {
    if (error instanceof Gone) return { verdict: 'not tried', why: error.message, isFailure: true, isGone: true };
    return { verdict: 'not tried', why: `the device does not come to RUNNING: ${reasonOf(error)}`, isFailure: true };
  }
  try {
    const exemption = rule.exempts?.(subject());
    if (exemption !== undefined) return { verdict: 'not tried', why: exemption };
    rule.try(subject());
    return { verdict: 'kept' };
  } catch (error) {
    const why = reasonOf(error);
    if (error instanceof NotTried) return { verdict: 'not tried', why, ...(error.isFailure && { isFailure: true }) };
    return deviation === undefined ? { verdict: 'broken', why } : { verdict: 'deviates', why, deviation };
  }
}

function conclude(results: readonly Result[], deviations: readonly Deviation[]): Conclusion {
  const isAny = (verdict: Verdict): boolean => results.some((result) => result.verdict === verdict);
  const isOpen = results.some(({ isFailure }) => isFailure === true);
  const kept = new Set(results.filter(({ verdict }) => verdict === 'kept').map(({ id }) => id));
  return {
    results,
    // a failure that no rule names is one all the same
    conforms: !isAny('broken') && !results.some(({ isGone }) => isGone === true) && (!isOpen || isAny('deviates')),
    absent: deviations.filter(({ rule }) => kept.has(rule)),
  };
}
