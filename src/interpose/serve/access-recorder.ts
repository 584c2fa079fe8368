import { createHash, type Hash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { errnoName } from '../../abi/errno.ts';
import { VFIO_DEVICE_GET_INFO } from '../../abi/vfio.ts';
import type { DeviceEvent, Direction } from '../../device/device-event.ts';
import type { Protocol } from '../../device/migratable.ts';
import { addDriverCall, type DriverCalls } from '../../recording/driver-calls.ts';
import { isLike, writeCall, writeNumbers } from '../../recording/line.ts';
import { TextWithGaps, Word, type LineWriter } from '../../recording/line-writer.ts';
import { dataOf, regionName } from '../../recording/region-name.ts';
import { arch, failedWith } from '../../sys/libc.ts';
import { processOf } from '../../sys/pidfd.ts';
import { sendNow } from '../../sys/socket.ts';
import { RING, type RecordingRing } from '../memory/recording-ring.ts';
import { messageOf, warn } from '../run/log.ts';
import { deviceInWindow, offsetInRegion, ownRegionAt } from '../run/window.ts';
import { ANSWERED, CONTINUE, type Call } from '../trap/call.ts';
import { callTime, clock } from '../trap/call-time.ts';
import { requestName } from './request-names.ts';

/** What a call is about. */
interface Subject {
  readonly kind: 'device' | 'group' | 'container' | 'iommufd';
  readonly name: string;
  /** The field that says so. */
  readonly field: Word;
}

/** What lines have in common that differ in their numbers alone. */
interface Form {
  readonly word: Word;
  /** What the access was, and the calls on drivers for it. */
  readonly call: DeviceEvent;
  readonly driver: readonly DriverCalls[];
}

/** Who calls and what about. */
interface Place {
  readonly subject: Subject | undefined;
  /** What lines have of it between their times and the call. */
  readonly word: Word;
  /** Of its lines. */
  readonly forms: Form[];
}

/** A thread that calls. */
interface Thread {
  readonly tid: number;
  /** The fields that say who it is, as of then. */
  readonly who: string;
  until: number;
  readonly places: Map<Subject | undefined, Place>;
  /** Where it has called last. */
  place: Place | undefined;
}

/** Migration data, as far as they were looked at. */
interface Data {
  readonly hash: Hash;
  bytes: number;
  /** Where they begin in the file for the data. */
  readonly at: number | undefined;
}

/** An access that was begun. */
interface Open {
  readonly begin: number;
  readonly again: boolean;
  subject: Subject | undefined;
  call: DeviceEvent | undefined;
  feature: string | undefined;
  /** What was read or written of a region of the device's own. */
  content: string | undefined;
  /** The first call on a driver, and the device that it is of: most accesses have no other one. */
  first: DeviceEvent | undefined;
  firstOn: string;
  /** All of them, if there are more. */
  driver: DriverCalls[] | undefined;
  /** What is to be told of few accesses. */
  more: More | undefined;
}

/** What an access has besides its call, and the calls on drivers for it. */
interface More {
  retries: number;
  moved: { readonly direction: Direction; bytes: number } | undefined;
  data: Data | undefined;
  /** Data that went out, which lie there until the next call: they are looked at when the VMM has its answer. */
  out: Uint8Array | undefined;
  /** Calls on drivers that a line has no room for. */
  omitted: number;
}

/** Where lines go, and the data themselves if they are wanted. */
export interface RecorderParts {
  readonly ring: RecordingRing;
  /** A byte there wakes whoever takes the lines. */
  readonly wake: number;
  /** A file for the data, and how much it may become. */
  readonly data: { readonly fd: number; readonly limit: number } | undefined;
}

/** From the clock of performance.now() to `CLOCK_MONOTONIC` in microseconds. */
const ORIGIN = Number(process.hrtime.bigint()) / 1000 - clock.now() * 1000;
/** For so long a thread is taken to be of the process that it was of, in milliseconds. */
const KNOWN = 1000;
const WAKE = new Uint8Array(1);
const syscallNames: ReadonlyMap<number, string> = new Map(
  Object.entries(arch.syscalls).map(([name, nr]) => [nr, name]),
);
const numbers = arch.syscalls;

/**
 * Makes a line of each access of the target, with the calls on drivers that it causes. Whoever serves a call says when it begins and
 * ends, the served device says what it is about and what passes on its two sides. Nothing here fails a call, or waits.
 */
export class AccessRecorder {
  readonly #ring: RecordingRing;
  readonly #wake: number;
  readonly #file: RecorderParts['data'];
  readonly #waiting = new Map<bigint, Open>();
  readonly #threads = new Map<number, Thread>();
  #thread: Thread | undefined;
  readonly #subjects = new Map<string, Subject>();
  #subject: Subject | undefined;
  #open: Open | undefined;
  #isTakingOver = false;

  constructor({ ring, wake, data }: RecorderParts) {
    this.#ring = ring;
    this.#wake = wake;
    this.#file = data;
  }

  /** For observe(): whole microseconds. */
  readonly clock = (): number => Math.round(ORIGIN + clock.now() * 1000);

  /** Calls are served that a supervisor before this had begun. */
  takesOver(calls: () => void): void {
    this.#isTakingOver = true;
    calls();
    this.#isTakingOver = false;
  }

  /** A call is served, for the first time or again. */
  begin(call: Call): void {
    const known = this.#waiting.size > 0 ? this.#waiting.get(call.id) : undefined;
    this.#open = known ?? newAccess(Math.round(ORIGIN + callTime() * 1000), this.#isTakingOver);
    this.#open.call = undefined;
  }

  /** The call that is served has to wait for its device. */
  parked(call: Call): void {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return;
    const more = moreOf(open);
    more.retries += 1;
    more.moved = undefined;
    more.data = undefined;
    more.out = undefined;
    this.#waiting.set(call.id, open);
  }

  /** The call will not be served again: its caller is gone. */
  abandoned(call: Call): void {
    this.#waiting.delete(call.id);
  }

  /** The call is on this device. */
  on(device: string): void {
    this.#about('device', device);
  }

  /** The call is on a node, which has this path; one of a device's own is a device to whoever asks it. */
  onNode(kind: 'group' | 'container' | 'iommufd' | 'cdev', path: string): void {
    this.#about(kind === 'cdev' ? 'group' : kind, path);
  }

  #about(kind: Subject['kind'], name: string): void {
    if (this.#open !== undefined) this.#open.subject = this.#subjectOf(kind, name);
  }

  /** Always the same for the same. */
  #subjectOf(kind: Subject['kind'], name: string): Subject {
    if (this.#subject?.name === name && this.#subject.kind === kind) return this.#subject;
    let subject = this.#subjects.get(name);
    if (subject?.kind !== kind) {
      const field = new Word(`,"${kind === 'device' ? 'device' : 'node'}":${JSON.stringify(name)}`);
      subject = { kind, name, field };
      this.#subjects.set(name, subject);
    }
    this.#subject = subject;
    return subject;
  }

  /** The feature that a `VFIO_DEVICE_FEATURE` is about. */
  asksFor(feature: string): void {
    if (this.#open !== undefined) this.#open.feature = feature;
  }

  /** These bytes were read or written in a region of the device's own. */
  accessed(bytes: Uint8Array): void {
    if (this.#open !== undefined) this.#open.content = dataOf(bytes);
  }

  /** What the VMM does with a device, as the device sees it. What a bridge does by itself afterwards is none of it. */
  seen(event: DeviceEvent): void {
    const open = this.#open;
    if (open !== undefined && open.call === undefined) open.call = event;
  }

  /** The VMM has got or given so much migration data. */
  moved(direction: Direction, bytes: number): void {
    const open = this.#open;
    if (open === undefined) return;
    const more = moreOf(open);
    if (more.moved === undefined) more.moved = { direction, bytes };
    else more.moved.bytes += bytes;
  }

  /** These bytes of migration data have passed. If they need not be looked at now, they stay where they are until the next call. */
  passed(bytes: Uint8Array, isNow: boolean): void {
    const open = this.#open;
    if (open === undefined || bytes.length === 0) return;
    if (isNow) this.#look(moreOf(open), bytes);
    else moreOf(open).out = bytes;
  }

  /** A call on a driver: for the access that is served, or for none. */
  driver(device: string, event: DeviceEvent): void {
    const open = this.#open;
    if (open === undefined) {
      this.#driverLine(device, event);
      return;
    }
    const { first, firstOn } = open;
    if (first === undefined) {
      open.first = event;
      open.firstOn = device;
      return;
    }
    const driver = (open.driver ??= [{ device: firstOn, first, times: 1 }]);
    if (!addDriverCall(driver, device, event)) moreOf(open).omitted += 1;
  }

  opened(device: string, protocol: Protocol, tid: number): void {
    const ring = this.#ring;
    ring.word(WORD.opened);
    ring.number(this.clock());
    ring.word(this.#fieldOf(device));
    ring.text(`,"protocol":"${protocol}"${this.#threadOf(tid).who}`);
    ring.word(WORD.endOfLine);
    this.#commit();
  }

  closed(device: string): void {
    this.#ring.word(WORD.closed);
    this.#ring.number(this.clock());
    this.#ring.word(this.#fieldOf(device));
    this.#ring.word(WORD.endOfLine);
    this.#commit();
  }

  /** The call has been answered. */
  end(call: Call, value: number, error: number): void {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined || !this.#ring.isOpen) return;
    const { call: seen, more } = open;
    if (more !== undefined && more.retries > 0) this.#waiting.delete(call.id);
    if (value === CONTINUE) {
      for (const { device, first } of driverOf(open)) this.#driverLine(device, first); // of a device that was looked at and left alone
      return;
    }
    if (more?.out !== undefined) this.#look(more, more.out);
    const us = Math.max(0, this.clock() - open.begin);
    if (seen === undefined || value < 0 || error !== 0 || more !== undefined || open.again || isFirstLook(call)) {
      this.#writeAccess(this.#ring, open, call, { us, value, error });
    } else this.#writeNumbers(open, seen, call, us, value);
    this.#commit();
  }

  /** What most accesses are: their lines are as those of others before, but for the numbers. */
  #writeNumbers(open: Open, seen: DeviceEvent, call: Call, us: number, value: number): void {
    const ring = this.#ring;
    const form = this.#formOf(open, seen, call);
    if (form === undefined) {
      this.#writeAccess(ring, open, call, { us, value, error: 0 });
      return;
    }
    ring.word(form.word);
    ring.number(open.begin);
    ring.number(us);
    writeNumbers(ring, seen);
    ring.number(value);
    const { driver, first: only } = open;
    if (driver !== undefined) for (const { first } of driver) writeDriverNumbers(ring, first);
    else if (only !== undefined) writeDriverNumbers(ring, only);
  }

  /** The form of a line; `undefined` if it has none, as it is like few others. */
  #formOf(open: Open, seen: DeviceEvent, call: Call): Form | undefined {
    const { forms } = this.#placeOf(call.tid, open.subject);
    for (let n = 0; n < forms.length; n += 1) {
      const form = forms[n];
      if (form !== undefined && isLike(form.call, seen) && areLike(form.driver, open)) return form;
    }
    const driver = driverOf(open);
    if (forms.length === MAX_FORMS || !isLike(seen, seen) || !areLike(driver, open)) return undefined;
    const text = new TextWithGaps();
    this.#writeAccess(text, open, call, { us: 0, value: 0, error: 0 });
    const form = { word: new Word(text.written), call: seen, driver };
    forms.push(form);
    return form;
  }

  #writeAccess(to: LineWriter, open: Open, call: Call, answer: Answer): void {
    const { begin, subject, again, more } = open;
    const driver = driverOf(open);
    to.word(WORD.access);
    to.number(begin);
    to.word(WORD.us);
    to.number(answer.us);
    to.word(this.#placeOf(call.tid, subject).word);
    const seen = isFirstLook(call) ? undefined : open.call;
    if (seen === undefined) to.text(otherCall(call, subject, open));
    else writeCall(to, seen);
    writeResult(to, call, answer);
    if (more?.moved !== undefined) writeMoved(to, more.moved);
    if (more?.data !== undefined) to.text(dataText(more.data));
    if (more !== undefined && more.retries > 0) to.text(`,"retries":${more.retries}`);
    if (again) to.word(WORD.again);
    if (driver.length > 0) this.#writeDriver(to, driver, subject);
    if (more !== undefined && more.omitted > 0) to.text(`,"driverOmitted":${more.omitted}`);
    to.word(WORD.endOfLine);
  }

  #writeDriver(to: LineWriter, driver: readonly DriverCalls[], subject: Subject | undefined): void {
    for (const [n, { device, first, times }] of driver.entries()) {
      to.word(n === 0 ? WORD.firstDriver : WORD.nextDriver);
      to.number(first.time);
      to.word(WORD.comma);
      writeCall(to, first);
      if (subject?.name !== device) to.word(this.#fieldOf(device));
      if (times > 1) to.text(`,"times":${times}`);
    }
    to.word(WORD.endOfList);
  }

  #driverLine(device: string, event: DeviceEvent): void {
    const ring = this.#ring;
    ring.word(WORD.driver);
    ring.number(event.time);
    ring.word(this.#fieldOf(device));
    ring.word(WORD.call);
    writeCall(ring, event);
    ring.word(WORD.endOfCall);
    this.#commit();
  }

  #fieldOf(device: string): Word {
    return this.#subjectOf('device', device).field;
  }

  #look(more: More, bytes: Uint8Array): void {
    const at = this.#keep(bytes);
    const data = (more.data ??= { hash: createHash('sha256'), bytes: 0, at });
    data.hash.update(bytes);
    data.bytes += bytes.length;
  }

  /** Writes bytes behind those that are in the file already, and returns where. */
  #keep(bytes: Uint8Array): number | undefined {
    const file = this.#file;
    const ring = this.#ring;
    if (file === undefined || !ring.isOpen) return undefined;
    const at = ring.dataLength;
    if (at + bytes.length > file.limit) {
      ring.close(RING.full);
      this.#wakeUp();
      warn(`--record-data: the file has ${at} bytes, and ${file.limit} are the limit: nothing more is recorded`);
      return undefined;
    }
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(file.fd, bytes, done, bytes.length - done, at + done);
    } catch (error) {
      ring.close(RING.lost);
      this.#wakeUp();
      warn(`--record-data: the file cannot be written (${messageOf(error)}), nothing more is recorded`);
      return undefined;
    }
    ring.dataLength = at + bytes.length;
    return at;
  }

  /** What was written is a line. */
  #commit(): void {
    const ring = this.#ring;
    if (!ring.isOpen) {
      ring.discard();
      return;
    }
    if (!ring.commit()) {
      ring.close(RING.lost);
      warn('the recording is ended: lines were lost, as nobody has taken them in time');
    }
    if (ring.wakes()) this.#wakeUp();
  }

  #wakeUp(): void {
    const sent = sendNow(this.#wake, WAKE);
    if (sent > 0 || failedWith(sent, 'EAGAIN') || !this.#ring.isOpen) return;
    this.#ring.close(RING.lost);
    warn('the recording is ended: the keeper, which writes it, is gone');
  }

  #threadOf(tid: number): Thread {
    const now = callTime();
    if (this.#thread?.tid === tid && this.#thread.until >= now) return this.#thread;
    let thread = this.#threads.get(tid);
    if (thread === undefined || thread.until < now) {
      if (this.#threads.size >= MAX_THREADS) this.#threads.clear();
      const who = `,"pid":${processOf(tid) ?? 'null'},"tid":${tid}`;
      const until = now + KNOWN;
      if (thread?.who === who) thread.until = until;
      else this.#threads.set(tid, (thread = { tid, who, until, places: new Map(), place: undefined }));
    }
    this.#thread = thread;
    return thread;
  }

  #placeOf(tid: number, subject: Subject | undefined): Place {
    const thread = this.#threadOf(tid);
    if (thread.place !== undefined && thread.place.subject === subject) return thread.place;
    let place = thread.places.get(subject);
    if (place === undefined) {
      place = { subject, word: new Word(`${thread.who}${subject?.field.text ?? ''},"call":{`), forms: [] };
      thread.places.set(subject, place);
    }
    thread.place = place;
    return place;
  }
}

const MAX_THREADS = 1024;
/** Of one place. A VMM that saves a device has three or four. */
const MAX_FORMS = 16;

/** What all lines are made of. */
const WORD = {
  access: new Word('{"kind":"access","begin":'),
  driver: new Word('{"kind":"driver","time":'),
  opened: new Word('{"kind":"opened","time":'),
  closed: new Word('{"kind":"closed","time":'),
  us: new Word(',"us":'),
  call: new Word(',"call":{'),
  result: new Word('},"result":'),
  out: new Word(',"moved":{"direction":"out","bytes":'),
  in: new Word(',"moved":{"direction":"in","bytes":'),
  again: new Word(',"again":true'),
  firstDriver: new Word(',"driver":[{"time":'),
  nextDriver: new Word('},{"time":'),
  endOfList: new Word('}]'),
  comma: new Word(','),
  end: new Word('}'),
  endOfCall: new Word('}}\n'),
  endOfLine: new Word('}\n'),
} as const;

function newAccess(begin: number, again: boolean): Open {
  return {
    begin,
    again,
    subject: undefined,
    call: undefined,
    feature: undefined,
    content: undefined,
    first: undefined,
    firstOn: '',
    driver: undefined,
    more: undefined,
  };
}

function moreOf(open: Open): More {
  return (open.more ??= {
    retries: 0,
    moved: undefined,
    data: undefined,
    out: undefined,
    omitted: 0,
  });
}

function dataText({ bytes, hash, at }: Data): string {
  return `,"data":{"bytes":${bytes},"sha256":"${hash.digest('hex')}"${at === undefined ? '' : `,"at":${at}`}}`;
}

/** How an access has ended. */
interface Answer {
  readonly us: number;
  readonly value: number;
  readonly error: number;
}

function writeResult(to: LineWriter, call: Call, { value, error }: Answer): void {
  if (error !== 0) {
    to.text(`},"errno":"${errnoText(error)}"`);
    return;
  }
  to.word(WORD.result);
  if (value >= 0) to.number(value);
  else to.text(resultText(call, value));
}

function writeMoved(to: LineWriter, { direction, bytes }: NonNullable<More['moved']>): void {
  to.word(WORD[direction]);
  to.number(bytes);
  to.word(WORD.end);
}

/** Whoever answers a call by other means than a value has given the caller a descriptor, or mapped memory. */
function resultText({ nr }: Call, value: number): string {
  if (value !== ANSWERED) return String(value);
  return nr === numbers.mmap ? '"address"' : '"fd"';
}

function errnoText(error: number): string {
  return errnoName(-error) ?? 'EIO';
}

function driverOf({ driver, first, firstOn }: Open): readonly DriverCalls[] {
  return driver ?? (first === undefined ? [] : [{ device: firstOn, first, times: 1 }]);
}

function writeDriverNumbers(ring: RecordingRing, event: DeviceEvent): void {
  ring.number(event.time);
  writeNumbers(ring, event);
}

/** Whether the line of an access has the form of one with these calls on drivers. To be repeated is no form. */
function areLike(form: readonly DriverCalls[], { driver, first, firstOn }: Open): boolean {
  if (driver === undefined) {
    if (first === undefined) return form.length === 0;
    const only = form[0];
    return only?.device === firstOn && form.length === 1 && isLike(only.first, first);
  }
  if (form.length !== driver.length) return false;
  for (let n = 0; n < form.length; n += 1) {
    const [a, b] = [form[n], driver[n]];
    if (a === undefined || b?.times !== 1 || a.device !== b.device || !isLike(a.first, b.first)) return false;
  }
  return true;
}

/** Who looks at a device may have it reset, which is for a bridge to do, not for the VMM. */
function isFirstLook(call: Call): boolean {
  return call.nr === numbers.ioctl && call.u32(1) === VFIO_DEVICE_GET_INFO;
}

/** What a call is that no device has seen: a question of what there is, or one that was refused. */
function otherCall(call: Call, subject: Subject | undefined, { feature, content }: Open): string {
  const name = syscallNames.get(call.nr) ?? String(call.nr);
  const head = `"protocol":"vfio","call":"${name}"`;
  switch (call.nr) {
    case numbers.ioctl: {
      const asked = feature === undefined ? '' : `,"feature":"${feature}"`;
      return `${head},"request":"${requestName(subject?.kind ?? 'device', call.u32(1))}"${asked}`;
    }
    case numbers.pread64:
    case numbers.pwrite64:
      return `${head}${placeText(call, 3, 2)}${content === undefined ? '' : `,"data":"${content}"`}`;
    case numbers.mmap:
      return `${head}${placeText(call, 5, 1)}`;
    case numbers.read:
    case numbers.write:
      return `${head},"bytes":${exact(call.count(2))}`;
    default:
      return head;
  }
}

function placeText(call: Call, offset: number, length: number): string {
  const bytes = `,"bytes":${exact(call.count(length))}`;
  const high = call.high(offset);
  const place = `,"offset":${offsetInRegion(high, call.u32(offset))}${bytes}`;
  return deviceInWindow(high) < 0 ? `,"region":"${regionName(ownRegionAt(high))}"${place}` : place;
}

function exact(count: number): number {
  return Math.min(count, Number.MAX_SAFE_INTEGER);
}
