import { errnoNumber, type ErrnoName } from '../abi/errno.ts';
import type { Option, Wrong } from './option.ts';

/** The n-th (from 1) read or write of data, or entry into a state, fails with an errno; `fatal` puts the device into ERROR. */
export interface Fault {
  readonly step: string;
  readonly nth: number;
  readonly errno: ErrnoName;
  readonly fatal: boolean;
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

/** `fault=`, as often as it is wanted. */
export const faultOption: Option<readonly Fault[]> = {
  meaning: 'STEP@N:ERRNO[!], STEP is read, write or a state such as STOP_COPY; ! leaves the device in ERROR',
  initial: [],
  parse: (texts, wrong) => texts.map((text) => parseFault(text, wrong)),
  format: (faults) => faults.map(({ step, nth, errno, fatal }) => `${step}@${nth}:${errno}${fatal ? '!' : ''}`),
};

function parseFault(text: string, wrong: Wrong): Fault {
  const match = /^([A-Za-z_0-9]+)@(\d{1,9}):([A-Z0-9]+)(!?)$/.exec(text);
  const [, step = '', nth = '', errno = '', fatal = ''] = match ?? [];
  if (match === null || !STEPS.includes(step) || Number(nth) < 1) {
    throw wrong(`is not STEP@N:ERRNO[!] with STEP one of ${STEPS.join(', ')}`, text);
  }
  if (errnoNumber(errno as ErrnoName) === undefined) throw wrong('names no errno that there is', text);
  return { step, nth: Number(nth), errno: errno as ErrnoName, fatal: fatal === '!' };
}
