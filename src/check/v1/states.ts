import { isV1State, V1, v1StateName, type V1State, type V1StateName } from '../../v1/states.ts';
import { mustBe, type Rule } from '../rule.ts';
import { shown, type V1Subject } from './subject.ts';

type V1Rule = Rule<V1Subject>;

const UAPI = 'linux/vfio.h 5.8, struct vfio_device_migration_info';
const inId = (name: string): string => name.toLowerCase().replaceAll('_', '-');

/** The changes that the header names, by where it does. */
const OF_THE_HEADER = [
  ['RUNNING', 'STOP', 'state transitions, 1'],
  ['RUNNING', 'STOP_COPY', 'state transitions, 2'],
  ['STOP_COPY', 'STOP', 'state transitions, 2'],
  ['RUNNING', 'PRE_COPY', 'state transitions, 3'],
  ['PRE_COPY', 'STOP_COPY', 'state transitions, 3'],
  ['RUNNING', 'RESUMING', 'state transitions, 4'],
  ['RESUMING', 'RUNNING', 'state transitions, 5'],
] as const;

/** Those that a VMM makes besides, and relies on. */
const OF_QEMU = [
  ['RUNNING', 'RUNNING', 'vfio_vmstate_change: the VM starts'],
  ['STOP', 'RUNNING', 'vfio_vmstate_change: the VM starts'],
  ['STOP_COPY', 'RUNNING', 'vfio_vmstate_change: a migration failed, the VM starts'],
  ['PRE_COPY', 'RUNNING', 'vfio_migration_state_notifier: a migration is cancelled'],
  ['STOP', 'STOP_COPY', 'vfio_save_setup: a VM that was stopped'],
  ['STOP_COPY', 'STOP_COPY', 'vfio_save_complete_precopy'],
  ['STOP', 'RESUMING', 'vfio_load_setup: a snapshot is loaded'],
] as const;

function arc(from: V1StateName, to: V1StateName, source: string): V1Rule {
  return {
    id: `v1-arc-${inId(from)}-${inId(to)}`,
    sentence: `A driver takes device_state ${V1[to]} (${to}) in ${V1[from]} (${from}).`,
    source,
    try(subject) {
      subject.comeToLeave(V1[from]);
      subject.set(V1[to]);
      subject.mustBeIn(V1[to]);
    },
  };
}

function invalid(value: number): V1Rule {
  return {
    id: `v1-invalid-${value}`,
    sentence: `A driver refuses device_state ${value}, and shows the state before or ERROR (6).`,
    source: `${UAPI}: device_state, invalid and error states`,
    try(subject) {
      mustBe(subject.refusal(() => subject.set(value)) !== undefined, 'the write succeeds');
      const found = subject.state();
      mustBe(found === V1.RUNNING || found === V1.ERROR, `device_state is ${shown(found)} then`);
    },
  };
}

function reset(state: Exclude<V1State, 6>): V1Rule {
  const name = v1StateName(state);
  return {
    id: `v1-reset-${inId(name)}`,
    sentence: `VFIO_DEVICE_RESET in ${state} (${name}) brings the device to 1 (RUNNING).`,
    source: `${UAPI}: device_state, error state; _RUNNING is the default state`,
    try(subject) {
      if (state !== V1.RUNNING) subject.come(state);
      subject.device.reset();
      subject.mustBeIn(V1.RUNNING);
    },
  };
}

/** device_state: what it takes, and what it shows. */
export const stateRules: readonly V1Rule[] = [
  ...OF_THE_HEADER.map(([from, to, where]) => arc(from, to, `${UAPI}: ${where}`)),
  ...OF_QEMU.map(([from, to, where]) => arc(from, to, `QEMU 7.2, hw/vfio/migration.c, ${where}`)),
  invalid(V1.RUNNING | V1.RESUMING),
  invalid(V1.ERROR),
  invalid(V1.RUNNING | V1.ERROR),
  ...[V1.STOP, V1.RUNNING, V1.STOP_COPY, V1.PRE_COPY, V1.RESUMING].map(reset),
  {
    id: 'v1-state-shown',
    sentence: 'A driver shows a state that there is, in each state that it was brought to.',
    source: `${UAPI}: device_state`,
    try(subject) {
      for (const state of [V1.STOP, V1.STOP_COPY, V1.PRE_COPY, V1.RESUMING]) {
        subject.again();
        subject.refusal(() => subject.set(state));
        const found = subject.state();
        mustBe(isV1State(found), `device_state is ${found}`);
      }
    },
  },
];
