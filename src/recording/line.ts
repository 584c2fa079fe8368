import type { DeviceEvent } from '../device/device-event.ts';
import { draftStateName } from '../v1/drafts/states.ts';
import { v1StateName, withoutReserved } from '../v1/states.ts';
import type { DeviceCall, RecordingLine } from './format.ts';
import { LineText, type LineWriter } from './line-writer.ts';

/** A line of a recording, with its end. */
export function lineOf(line: RecordingLine): string {
  return `${JSON.stringify(line)}\n`;
}

/** A device's event as a recording has it. */
export function deviceCall(event: DeviceEvent): DeviceCall {
  return JSON.parse(`{${callText(event)}}`) as DeviceCall;
}

/** The fields of a call in JSON, without braces and without its time. */
export function callText(event: DeviceEvent): string {
  const text = new LineText();
  writeCall(text, event);
  return text.written;
}

/**
 * Writes what callText() gives: by hand, as this is done for every access of a VMM while it waits. No name in an event has anything that
 * JSON would escape.
 */
export function writeCall(to: LineWriter, event: DeviceEvent): void {
  to.word('"protocol":"');
  to.word(event.protocol);
  to.word('","call":"');
  to.word(event.call);
  to.word('"');
  writeFields(to, event);
  if (event.errno !== undefined) writeWord(to, ',"errno":"', event.errno);
}

function writeFields(to: LineWriter, event: DeviceEvent): void {
  switch (event.call) {
    case 'register': {
      to.word(',"access":"');
      to.word(event.access);
      to.word('","register":"');
      to.word(event.register);
      to.word('"');
      if (event.value === undefined) return;
      writeNumber(to, ',"value":', event.value);
      if (event.register === 'device_state') writeWord(to, ',"state":"', deviceStateName(event, event.value));
      return;
    }
    case 'other':
      writeWord(to, ',"access":"', event.access);
      writeNumber(to, ',"offset":', event.offset);
      writeNumber(to, ',"bytes":', event.bytes);
      return;
    case 'data':
      writeWord(to, ',"direction":"', event.direction);
      if (event.protocol !== 'v2') writeNumber(to, ',"offset":', event.offset);
      writeNumber(to, ',"bytes":', event.bytes);
      return;
    case 'get-state':
      if (event.state !== undefined) writeWord(to, ',"state":"', event.state);
      return;
    case 'set-state':
      writeWord(to, ',"state":"', event.state);
      writeFlag(to, 'session', event.session);
      return;
    case 'data-size':
      writeNumber(to, ',"bytes":', event.bytes);
      return;
    case 'precopy-info':
      writeNumber(to, ',"initialBytes":', event.initialBytes);
      writeNumber(to, ',"dirtyBytes":', event.dirtyBytes);
      writeFlag(to, 'reinit', event.reinit);
      return;
    case 'precopy-info-v2':
      writeFlag(to, 'wanted', event.wanted);
      return;
    case 'reset':
  }
}

/** What a device_state means, which a refused write tells of too. */
function deviceStateName({ protocol }: Extract<DeviceEvent, { call: 'register' }>, value: number): string {
  return protocol === 'v1' ? v1StateName(withoutReserved(value)) : draftStateName(protocol, value);
}

function writeWord(to: LineWriter, field: string, word: string): void {
  to.word(field);
  to.word(word);
  to.word('"');
}

function writeNumber(to: LineWriter, field: string, value: number | undefined): void {
  if (value === undefined) return;
  to.word(field);
  to.number(value);
}

function writeFlag(to: LineWriter, field: string, is: boolean | undefined): void {
  if (is !== undefined) to.word(`,"${field}":${is}`);
}

/** Whether two calls are the same, with the same answer: all but their times. */
export function isSameCall(a: DeviceEvent, b: DeviceEvent): boolean {
  if (a.call !== b.call || a.protocol !== b.protocol || a.errno !== b.errno) return false;
  return callText(a) === callText(b);
}
