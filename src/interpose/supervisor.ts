import { writeSync } from 'node:fs';
import { errnoNumber } from '../abi/errno.ts';
import { POLLHUP, POLLIN } from '../abi/fcntl.ts';
import { SECCOMP_USER_NOTIF_FLAG_CONTINUE } from '../abi/seccomp.ts';
import { isNotReady, ShimError } from '../error.ts';
import { mapSharedMemory } from '../sys/memory.ts';
import { PollSet } from '../sys/poll.ts';
import { Listener } from '../sys/seccomp.ts';
import { ANSWERED, Call, CONTINUE, PREPARED } from './call.ts';
import { JournalLayout, MAX_PARKED } from './journal.ts';
import { warn } from './log.ts';
import { FIRST_FD, firstFreeFd, LISTENER_FD, placesOf, type Plan } from './plan.ts';
import type { DeviceReport } from './report.ts';
import { Router } from './router.ts';
import { Trace } from './trace.ts';

/** After so many supervisors died over one call, it is refused. */
const MAX_ATTEMPTS = 3;

/**
 * Answers the trapped calls of one target and its children, one after the other, until the last of them has ended.
 *
 * The process does nothing else: it waits in the kernel, and a call is served to its end before the next, which is what
 * makes a call take 8 microseconds. A call that has to wait for its device is parked, and others are served meanwhile.
 */
export class Supervisor {
  readonly #plan: Plan;
  readonly #layout: JournalLayout;
  readonly #journal: Uint8Array;
  readonly #listener: Listener;
  readonly #router: Router;
  readonly #current: Call;
  readonly #poll = new PollSet(1);
  readonly #parked: number[] = [];
  readonly #trace: Trace | undefined;

  constructor(plan: Plan) {
    this.#plan = plan;
    this.#layout = new JournalLayout(placesOf(plan));
    this.#journal = mapSharedMemory(FIRST_FD, this.#layout.size).bytes;
    this.#listener = new Listener(LISTENER_FD, this.#layout.notification(this.#journal, 0));
    this.#listener.wakeOnThisCpu();
    this.#trace = plan.trace === undefined ? undefined : new Trace(plan.trace);
    const gone = (report: DeviceReport): void => this.#writeReport(report);
    this.#router = new Router(plan, this.#listener, this.#layout, this.#journal, { trace: this.#trace, gone });
    this.#current = new Call(this.#layout.notification(this.#journal, 0));
    this.#poll.set(0, LISTENER_FD, POLLIN);
  }

  /** Serves until no process is left that could call. */
  run(): void {
    this.#takeOver();
    for (;;) {
      if (this.#parked.length > 0 || !this.#listener.endsWaiting) {
        if (!this.#wait()) break;
      } else if (this.#listener.receive()) this.#serve(this.#current, 0);
      else if (this.#isDeserted()) break;
    }
  }

  /** Serves what comes while calls wait for their device; false where nobody is left that could call. */
  #wait(): boolean {
    const parked = this.#parked.length;
    // where no more calls can be parked, new ones stay with the kernel until one is done
    if (this.#poll.wait(parked >= MAX_PARKED ? 0 : 1, parked > 0 ? 1 : undefined)) {
      const events = this.#poll.events(0);
      if ((events & POLLIN) !== 0) {
        if (this.#listener.receive()) this.#serve(this.#current, 0);
      } else if ((events & POLLHUP) !== 0) return false;
    }
    this.#retryParked();
    return true;
  }

  #isDeserted(): boolean {
    return this.#poll.wait(1, 0) && (this.#poll.events(0) & (POLLIN | POLLHUP)) === POLLHUP;
  }

  /** One line of JSON for each device. */
  writeReports(): void {
    for (const report of this.#router.devices.reports()) this.#writeReport(report);
  }

  #writeReport(report: DeviceReport): void {
    if (this.#plan.reportFd !== undefined) writeSync(firstFreeFd(this.#plan), `${JSON.stringify(report)}\n`);
  }

  /** What a supervisor that was killed left behind: calls that it had begun, answered or not, and calls that wait. */
  #takeOver(): void {
    for (let place = MAX_PARKED; place >= 0; place -= 1) {
      const call = new Call(this.#layout.notification(this.#journal, place));
      if (call.id === 0n) continue;
      if (!this.#listener.isValid(call.id)) {
        this.#clear(place);
        continue;
      }
      const attempts = this.#layout.attempts(this.#journal, place);
      const attempt = (attempts[0] ?? 0) + 1;
      attempts[0] = attempt;
      const done = this.#router.devices.ledgers().find((ledger) => ledger.isOf(call.words));
      if (done !== undefined)
        this.#listener.respond(call.words, done.answer.value, done.answer.error, done.answer.flags);
      else if (attempt > MAX_ATTEMPTS) this.#listener.respond(call.words, 0, -errnoNumber('EIO'));
      else this.#serve(call, place);
      attempts[0] = 0;
      if (place > 0 && !this.#parked.includes(place)) this.#clear(place);
    }
  }

  /** Serves the call in a place of the journal; false where it has to wait. */
  #serve(call: Call, place: number): boolean {
    let value = 0;
    let error = 0;
    try {
      value = this.#router.dispatch(call);
    } catch (failure) {
      if (isNotReady(failure)) {
        if (place === 0) this.#park();
        else if (!this.#parked.includes(place)) this.#parked.push(place);
        return false;
      }
      error = -errorNumber(failure);
    }
    const { words } = call;
    if (value === PREPARED) {
      this.#router.touched?.commit(words, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
      this.#listener.respond(words, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
    } else if (value === CONTINUE) this.#listener.respond(words, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
    else {
      this.#router.touched?.commit(words, value, error);
      if (value !== ANSWERED) this.#listener.respond(words, value, error);
    }
    this.#trace?.write(call, value, error);
    return true;
  }

  /** Copies the call being served to a place of its own, where it waits. */
  #park(): void {
    const place = this.#freePlace();
    this.#layout.notification(this.#journal, place).set(this.#layout.notification(this.#journal, 0));
    this.#layout.notification(this.#journal, 0).fill(0);
    this.#parked.push(place);
  }

  #freePlace(): number {
    for (let place = 1; place <= MAX_PARKED; place += 1) if (!this.#parked.includes(place)) return place;
    throw new RangeError('no place for a call that waits');
  }

  #retryParked(): void {
    for (const place of this.#parked.slice()) {
      const call = new Call(this.#layout.notification(this.#journal, place));
      if (this.#listener.isValid(call.id) && !this.#serve(call, place)) continue;
      this.#parked.splice(this.#parked.indexOf(place), 1);
      this.#clear(place);
    }
  }

  #clear(place: number): void {
    this.#layout.notification(this.#journal, place).fill(0);
  }
}

/** The errno that the target sees. A failure of our own is EIO to it, and is said here. */
function errorNumber(failure: unknown): number {
  if (failure instanceof ShimError) return failure.errnoNumber;
  warn(`internal error: ${failure instanceof Error ? (failure.stack ?? failure.message) : String(failure)}`);
  return errnoNumber('EIO');
}
