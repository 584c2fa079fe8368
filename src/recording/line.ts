import type { DeviceEvent } from '../device/device-event.ts';
import { draftStateName } from '../v1/drafts/states.ts';
import { v1StateName, withoutReserved } from '../v1/states.ts';
import type { DeviceCall, RecordingLine } from './format.ts';
import { LineText, type LineWriter } from './line-writer.ts';
import { pieces, type Piece } from './pieces.ts';

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

const { PROTOCOL, CALL_NAME, END, ERRNO, ACCESS, REGISTER, DIRECTION, STATE, VALUE, OFFSET, BYTES } = pieces;
const { INITIAL_BYTES, DIRTY_BYTES, SESSION, NO_SESSION, REINIT, NO_REINIT, WANTED, NOT_WANTED } = pieces;

/**
 * Writes what callText() gives: by hand, as this is done for every access of a VMM while it waits. No name in an event has anything that
 * JSON would escape.
 */
export function writeCall(to: LineWriter, event: DeviceEvent): void {
  to.piece(PROTOCOL);
  to.text(event.protocol);
  to.piece(CALL_NAME);
  to.text(event.call);
  to.piece(END);
  writeFields(to, event);
  if (event.errno !== undefined) writeText(to, ERRNO, event.errno);
}

function writeFields(to: LineWriter, event: DeviceEvent): void {
  switch (event.call) {
    case 'register': {
      to.piece(ACCESS);
      to.text(event.access);
      to.piece(REGISTER);
      to.text(event.register);
      to.piece(END);
      if (event.value === undefined) return;
      writeNumber(to, VALUE, event.value);
      if (event.register === 'device_state') writeText(to, STATE, deviceStateName(event, event.value));
      return;
    }
    case 'other':
      writeText(to, ACCESS, event.access);
      writeNumber(to, OFFSET, event.offset);
      writeNumber(to, BYTES, event.bytes);
      return;
    case 'data':
      writeText(to, DIRECTION, event.direction);
      if (event.protocol !== 'v2') writeNumber(to, OFFSET, event.offset);
      writeNumber(to, BYTES, event.bytes);
      return;
    case 'get-state':
      if (event.state !== undefined) writeText(to, STATE, event.state);
      return;
    case 'set-state':
      writeText(to, STATE, event.state);
      writeFlag(to, SESSION, NO_SESSION, event.session);
      return;
    case 'data-size':
      writeNumber(to, BYTES, event.bytes);
      return;
    case 'precopy-info':
      writeNumber(to, INITIAL_BYTES, event.initialBytes);
      writeNumber(to, DIRTY_BYTES, event.dirtyBytes);
      writeFlag(to, REINIT, NO_REINIT, event.reinit);
      return;
    case 'precopy-info-v2':
      writeFlag(to, WANTED, NOT_WANTED, event.wanted);
      return;
    case 'reset':
  }
}

/** What a device_state means, which a refused write tells of too. */
function deviceStateName({ protocol }: Extract<DeviceEvent, { call: 'register' }>, value: number): string {
  return protocol === 'v1' ? v1StateName(withoutReserved(value)) : draftStateName(protocol, value);
}

function writeText(to: LineWriter, field: Piece, text: string): void {
  to.piece(field);
  to.text(text);
  to.piece(END);
}

function writeNumber(to: LineWriter, field: Piece, value: number | undefined): void {
  if (value === undefined) return;
  to.piece(field);
  to.number(value);
}

function writeFlag(to: LineWriter, yes: Piece, no: Piece, is: boolean | undefined): void {
  if (is !== undefined) to.piece(is ? yes : no);
}

/** Whether two calls are the same, with the same answer: all but their times. */
export function isSameCall(a: DeviceEvent, b: DeviceEvent): boolean {
  if (a.call !== b.call || a.protocol !== b.protocol || a.errno !== b.errno) return false;
  return callText(a) === callText(b);
}
