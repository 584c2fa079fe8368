import type { DeviceEvent } from '../device/device-event.ts';
import { draftStateName } from '../v1/drafts/states.ts';
import { v1StateName, withoutReserved } from '../v1/states.ts';
import type { DeviceCall, RecordingLine } from './format.ts';

/** A line of a recording, with its end. */
export function lineOf(line: RecordingLine): string {
  return `${JSON.stringify(line)}\n`;
}

/** A device's event as a recording has it. */
export function deviceCall(event: DeviceEvent): DeviceCall {
  return JSON.parse(`{${callText(event)}}`) as DeviceCall;
}

/**
 * The fields of a call in JSON, without braces and without its time: by hand, as this is done for every access of a VMM while it waits.
 * No name in an event has anything that JSON would escape.
 */
export function callText(event: DeviceEvent): string {
  const { errno } = event;
  const head = `"protocol":"${event.protocol}","call":"${event.call}"`;
  return `${head}${fieldsText(event)}${errno === undefined ? '' : `,"errno":"${errno}"`}`;
}

function fieldsText(event: DeviceEvent): string {
  switch (event.call) {
    case 'register': {
      const { access, register, value } = event;
      const text = `,"access":"${access}","register":"${register}"`;
      return value === undefined ? text : `${text},"value":${value}${stateText(event, value)}`;
    }
    case 'other':
      return `,"access":"${event.access}","offset":${event.offset},"bytes":${event.bytes}`;
    case 'data': {
      const offset = event.protocol === 'v2' ? '' : `,"offset":${event.offset}`;
      const bytes = event.bytes === undefined ? '' : `,"bytes":${event.bytes}`;
      return `,"direction":"${event.direction}"${offset}${bytes}`;
    }
    case 'get-state':
      return event.state === undefined ? '' : `,"state":"${event.state}"`;
    case 'set-state':
      return `,"state":"${event.state}"${event.session === undefined ? '' : `,"session":${event.session}`}`;
    case 'data-size':
      return event.bytes === undefined ? '' : `,"bytes":${event.bytes}`;
    case 'precopy-info': {
      if (event.initialBytes === undefined) return '';
      const reinit = event.reinit === undefined ? '' : `,"reinit":${event.reinit}`;
      return `,"initialBytes":${event.initialBytes},"dirtyBytes":${event.dirtyBytes}${reinit}`;
    }
    case 'precopy-info-v2':
      return `,"wanted":${event.wanted}`;
    case 'reset':
      return '';
  }
}

/** What a device_state means, which a refused write tells of too. */
function stateText(event: Extract<DeviceEvent, { call: 'register' }>, value: number): string {
  if (event.register !== 'device_state') return '';
  const { protocol } = event;
  return `,"state":"${protocol === 'v1' ? v1StateName(withoutReserved(value)) : draftStateName(protocol, value)}"`;
}
