import type { DeviceEvent } from '../device/device-event.ts';
import { draftStateName } from '../v1/drafts/states.ts';
import { v1StateName, withoutReserved } from '../v1/states.ts';
import type { DeviceCall, RecordingLine } from './format.ts';
import { LineText, Word, type LineWriter } from './line-writer.ts';

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
  to.word(headOf(event));
  writeFields(to, event);
  if (event.errno !== undefined) writeWord(to, 'errno', event.errno);
}

type EventOf<C extends DeviceEvent['call']> = Extract<DeviceEvent, { call: C }>;
type RegisterEvent = EventOf<'register'>;

/** Words that differ in one text, of which there are few. */
class Words {
  readonly #before: string;
  readonly #after: string;
  readonly #words = new Map<string, Word>();

  constructor(before: string, after: string) {
    this.#before = before;
    this.#after = after;
  }

  of(text: string): Word {
    let word = this.#words.get(text);
    if (word === undefined) {
      word = new Word(this.#before + text + this.#after);
      if (this.#words.size < MOST_WORDS) this.#words.set(text, word); // a driver may make up names of states
    }
    return word;
  }
}

const MOST_WORDS = 256;

type Protocol = DeviceEvent['protocol'];

function ofProtocols(before: (protocol: Protocol) => string): Readonly<Record<Protocol, Words>> {
  const words = (protocol: Protocol): Words => new Words(before(protocol), '"');
  return {
    v1: words('v1'),
    v2: words('v2'),
    'draft-2018': words('draft-2018'),
    'draft-2019': words('draft-2019'),
  };
}

const calls = ofProtocols((protocol) => `"protocol":"${protocol}","call":"`);
const accesses = (access: RegisterEvent['access']): Readonly<Record<Protocol, Words>> =>
  ofProtocols((protocol) => `"protocol":"${protocol}","call":"register","access":"${access}","register":"`);
const registers = { read: accesses('read'), write: accesses('write') };

/** Of fields that have a text, a number, or a truth. */
const words = {
  state: new Words(',"state":"', '"'),
  errno: new Words(',"errno":"', '"'),
  access: new Words(',"access":"', '"'),
  direction: new Words(',"direction":"', '"'),
};
const numbers = new Words(',"', '":');
const flags = { true: new Words(',"', '":true'), false: new Words(',"', '":false') };

/** What a call begins with. */
function headOf(event: DeviceEvent): Word {
  const { protocol, call } = event;
  if (call !== 'register') return calls[protocol].of(call);
  return registers[event.access][protocol].of(event.register);
}

function writeFields(to: LineWriter, event: DeviceEvent): void {
  switch (event.call) {
    case 'register':
      if (event.value === undefined) return;
      writeNumber(to, 'value', event.value);
      if (event.register === 'device_state') writeWord(to, 'state', deviceStateName(event, event.value));
      return;
    case 'other':
      writeWord(to, 'access', event.access);
      writeNumber(to, 'offset', event.offset);
      writeNumber(to, 'bytes', event.bytes);
      return;
    case 'data':
      writeWord(to, 'direction', event.direction);
      if (event.protocol !== 'v2') writeNumber(to, 'offset', event.offset);
      writeNumber(to, 'bytes', event.bytes);
      return;
    case 'get-state':
      if (event.state !== undefined) writeWord(to, 'state', event.state);
      return;
    case 'set-state':
      writeWord(to, 'state', event.state);
      writeFlag(to, 'session', event.session);
      return;
    case 'data-size':
      writeNumber(to, 'bytes', event.bytes);
      return;
    case 'precopy-info':
      writeNumber(to, 'initialBytes', event.initialBytes);
      writeNumber(to, 'dirtyBytes', event.dirtyBytes);
      writeFlag(to, 'reinit', event.reinit);
      return;
    case 'precopy-info-v2':
      writeFlag(to, 'wanted', event.wanted);
      return;
    case 'reset':
  }
}

/**
 * Writes the numbers of what writeCall() writes, in order. Of the calls that are made most, as isLike() says of a call that is one of them.
 */
export function writeNumbers(to: Pick<LineWriter, 'number'>, event: DeviceEvent): void {
  if (event.call === 'register') to.number(event.value ?? 0);
  else if (event.call === 'data') {
    if (event.protocol !== 'v2') to.number(event.offset);
    to.number(event.bytes ?? 0);
  } else if (event.call === 'data-size') to.number(event.bytes ?? 0);
}

/**
 * True if what writeCall() writes of two calls differs in numbers alone; false of calls that are made seldom, or have failed. Each kind of
 * call has a function of its own, which sees objects of one shape: the processor finds their fields at once.
 */
export function isLike(a: DeviceEvent, b: DeviceEvent): boolean {
  switch (a.call) {
    case 'register':
      return b.call === 'register' && isLikeAccess(a, b);
    case 'get-state':
      return b.call === 'get-state' && isLikeQuestion(a, b);
    case 'data':
      return b.call === 'data' && isLikeMove(a, b);
    case 'data-size':
      return b.call === 'data-size' && a.errno === undefined && b.errno === undefined;
    default:
      return false;
  }
}

/** The name of a state is no number. */
function isLikeAccess(a: RegisterEvent, b: RegisterEvent): boolean {
  if (a.register !== b.register || a.access !== b.access || a.protocol !== b.protocol) return false;
  if (a.errno !== undefined || b.errno !== undefined) return false;
  return a.register !== 'device_state' || a.value === b.value;
}

function isLikeQuestion(a: EventOf<'get-state'>, b: EventOf<'get-state'>): boolean {
  return a.state === b.state && a.errno === undefined && b.errno === undefined;
}

function isLikeMove(a: EventOf<'data'>, b: EventOf<'data'>): boolean {
  if (a.direction !== b.direction || a.protocol !== b.protocol) return false;
  return a.errno === undefined && b.errno === undefined;
}

/** What a device_state means, which a refused write tells of too. */
function deviceStateName({ protocol }: RegisterEvent, value: number): string {
  return protocol === 'v1' ? v1StateName(withoutReserved(value)) : draftStateName(protocol, value);
}

function writeWord(to: LineWriter, field: keyof typeof words, text: string): void {
  to.word(words[field].of(text));
}

function writeNumber(to: LineWriter, field: string, value: number | undefined): void {
  if (value === undefined) return;
  to.word(numbers.of(field));
  to.number(value);
}

function writeFlag(to: LineWriter, field: string, is: boolean | undefined): void {
  if (is !== undefined) to.word(flags[is ? 'true' : 'false'].of(field));
}

/** Whether two calls are the same, with the same answer: all but their times. */
export function isSameCall(a: DeviceEvent, b: DeviceEvent): boolean {
  if (a.call !== b.call || a.protocol !== b.protocol || a.errno !== b.errno) return false;
  return callText(a) === callText(b);
}
