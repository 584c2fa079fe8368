import type { Option, Wrong } from './option.ts';

/** The n-th (from 1) command of the firmware fails; `isState` with the status that says that the device's state is bad. */
export interface FirmwareError {
  readonly command: 'SAVE' | 'LOAD';
  readonly nth: number;
  readonly isState: boolean;
}

/** `fwerr=`, as often as it is wanted. */
export const firmwareErrors: Option<readonly FirmwareError[]> = {
  meaning:
    'SAVE@N[:state] or LOAD@N, a command of the firmware that fails; SAVE with :state because the device is in no state for it',
  initial: [],
  parse: (texts, wrong) => texts.map((text) => parse(text, wrong)),
  format: (errors) => errors.map(({ command, nth, isState }) => `${command}@${nth}${isState ? ':state' : ''}`),
};

function parse(text: string, wrong: Wrong): FirmwareError {
  const [, command, nth, state] = /^(SAVE|LOAD)@([1-9]\d{0,8})(:state)?$/.exec(text) ?? [];
  const isState = state !== undefined;
  if ((command !== 'SAVE' && command !== 'LOAD') || (command === 'LOAD' && isState)) {
    throw wrong('is not SAVE@N, SAVE@N:state or LOAD@N', text);
  }
  return { command, nth: Number(nth), isState };
}
