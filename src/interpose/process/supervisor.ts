import { writeSync } from 'node:fs';
import { errnoNumber } from '../../abi/errno.ts';
import { POLLHUP, POLLIN } from '../../abi/fcntl.ts';
import { mapSharedMemory } from '../../sys/memory.ts';
import { Outlet } from '../../sys/outlet.ts';
import { OwnedFd } from '../../sys/fd.ts';
import { PollSet } from '../../sys/poll.ts';
import { Listener } from '../../sys/seccomp.ts';
import { FdShelf } from '../../sys/fd-shelf.ts';
import { FdStore } from '../../sys/socket.ts';
import { Bridging } from '../bridged/bridging.ts';
import { Call } from '../trap/call.ts';
import { clock } from '../trap/call-time.ts';
import { Emulation } from '../emulated/emulation.ts';
import type { Devices } from '../serve/devices.ts';
import { Findings } from '../bridged/findings.ts';
import { JournalLayout, MAX_PARKED } from '../memory/journal.ts';
import { Ledgers } from '../memory/ledger.ts';
import { messageOf, serving, warn } from '../run/log.ts';
import { fdShelfFds, fdStoreFds, inheritedFiles, JOURNAL_FD, LISTENER_FD } from '../memory/inherited.ts';
import { Parked } from '../memory/parked.ts';
import { BRIDGED, hasLog, placesOf, type Plan } from '../run/plan.ts';
import type { DeviceReport } from '../serve/report.ts';
import { kernelReach } from '../bridged/reach.ts';
import { Rehearsal } from '../rehearsal/rehearsal.ts';
import { RecordingRing } from '../memory/recording-ring.ts';
import { AccessRecorder } from '../serve/access-recorder.ts';
import { Router } from '../serve/router.ts';
import { serve } from '../serve/serve.ts';
import { Together } from '../serve/together.ts';
import { Turn } from '../memory/turn.ts';

/** So long after the last call nobody seems to be waiting for the next, in milliseconds. */
const QUIET = 20;
/** After so many calls that came in between there is nothing left to rehearse: it has been done in earnest. */
const ENOUGH = 1000;
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
  readonly #ledgers: Ledgers;
  readonly #router: Router;
  /** None if devices are to have nothing to do with each other. */
  readonly #peers: Together | undefined;
  readonly #current: Call;
  readonly #turn: Turn;
  /** Of the listener alone. */
  readonly #poll = new PollSet(1);
  /** The launcher's stderr, until the process that was launched has ended. */
  #lastWords: OwnedFd | undefined;
  readonly #parked = new Parked();
  readonly #recorder: AccessRecorder | undefined;
  /** Says to the keeper that this supervisor serves. */
  readonly #begun: Uint8Array;
  /** Reports that nobody took at once. */
  readonly #unsent: string[] = [];
  /** Of devices of the kernel. */
  #findings: Findings | undefined;
  /** Begun once there is a device to serve. */
  #rehearsal: Rehearsal | undefined;
  #hasRehearsed = false;
  #interruptions = 0;
  /** When devices have something to do by themselves. */
  #workDue = Number.POSITIVE_INFINITY;
  /** Nobody has called for a while. */
  #isQuiet = false;

  constructor(plan: Plan) {
    this.#plan = plan;
    this.#layout = new JournalLayout(placesOf(plan));
    this.#journal = mapSharedMemory(JOURNAL_FD, this.#layout.size).bytes;
    this.#begun = this.#layout.begun(this.#journal);
    this.#listener = new Listener(LISTENER_FD, this.#layout.notification(this.#journal, 0));
    this.#listener.wakeOnThisCpu();
    this.#recorder = this.#makeRecorder();
    this.#ledgers = new Ledgers(this.#layout.ledgers(this.#journal));
    if (plan.p2p) this.#peers = new Together({ commit: (ledgers) => this.#ledgers.commit(ledgers), warn });
    this.#router = new Router(this.#makeDevices(), plan.dataFds, this.#peers);
    this.#current = new Call(this.#layout.notification(this.#journal, 0));
    this.#turn = new Turn(this.#listener, this.#ledgers, this.#current);
    this.#poll.set(0, LISTENER_FD, POLLIN);
    const { target, lastWords } = plan.fds;
    this.#parked.watch(0, LISTENER_FD);
    if (lastWords === undefined) return;
    this.#lastWords = new OwnedFd(lastWords);
    this.#parked.watch(1, target);
  }

  #makeDevices(): Devices {
    const plan = this.#plan;
    const layout = this.#layout;
    const journal = this.#journal;
    const ledgers = this.#ledgers;
    const options = {
      ...plan,
      peers: this.#peers,
      warn,
      log: plan.verbose ? warn : undefined,
      recorder: this.#recorder,
      notesProgress: plan.status !== undefined,
    };
    if (plan.devices.length > 0) {
      const storeOf = (n: number): FdStore => new FdStore(...fdStoreFds(plan, n));
      const shelfOf = (n: number): FdShelf => new FdShelf(...fdShelfFds(plan, n));
      return new Emulation(plan, { layout, journal, ledgers, filesOf: inheritedFiles, storeOf, shelfOf }, options);
    }
    const gone = (report: DeviceReport): void => this.#sendReport(report);
    const findings = new Findings(layout.findings(journal), options.log);
    this.#findings = findings;
    const places = Array.from({ length: BRIDGED }, (_, place) => layout.deviceLedger(journal, ledgers, place));
    const containers = plan.dirtyPages ? layout.containerLedgers(journal, ledgers) : [];
    return new Bridging(places, {
      ...options,
      containers,
      gone,
      findings,
      reach: kernelReach,
      caller: () => this.#turn.caller,
    });
  }

  #makeRecorder(): AccessRecorder | undefined {
    const { recording, fds } = this.#plan;
    if (recording === undefined || fds.wake === undefined) return undefined;
    const ring = new RecordingRing(this.#layout.recording(this.#journal));
    const data = fds.recordData === undefined ? undefined : { fd: fds.recordData, limit: recording.limit };
    return new AccessRecorder({ ring, wake: fds.wake, data });
  }

  /** Serves until no process is left that could call. */
  run(): void {
    if (this.#recorder === undefined) this.#takeOver();
    else this.#recorder.takesOver(() => this.#takeOver());
    this.#begun[0] = 1;
    for (;;) {
      const due = this.#router.devices.work();
      const wait = this.#peers?.work() ?? Infinity;
      this.#workDue = wait === Infinity ? due : Math.min(due, clock.now() + wait); // most often nothing needs the time
      if (this.#rehearsal !== undefined && this.#rehearses(this.#rehearsal)) continue;
      if (this.#hasToPoll()) {
        if (!this.#wait()) break;
      } else if (this.#listener.receive()) this.#serve(this.#current, 0);
      else if (this.#isDeserted()) break;
    }
    this.#conclude();
  }

  /** There is something to wait for besides the next call. */
  #hasToPoll(): boolean {
    return (
      this.#parked.count > 0 ||
      !this.#listener.endsWaiting ||
      this.#lastWords !== undefined ||
      this.#watchesDevices() ||
      this.#workDue < Number.POSITIVE_INFINITY
    );
  }

  /** Devices have something by which they are woken. */
  #watchesDevices(): boolean {
    const { wakeFd = -1 } = this.#router.devices;
    this.#parked.watch(2, wakeFd);
    return wakeFd >= 0;
  }

  /** The target has ended: what is said now goes to the log, or where its stderr was when it was launched. */
  #conclude(): void {
    const conclusion = this.#findings?.conclusion;
    if (conclusion === undefined || !this.#plan.verbose) return;
    if (hasLog(this.#plan)) warn(conclusion);
    else if (this.#lastWords !== undefined) {
      new Outlet(this.#lastWords.number).write(Buffer.from(`vfio-shim: ${conclusion}\n`));
    }
    this.#giveUpLastWords();
  }

  #giveUpLastWords(): void {
    this.#lastWords?.close();
    this.#lastWords = undefined;
    this.#parked.watch(1, -1);
  }

  /** At the first call on a device; if that is already being migrated, it is too late. */
  #beginRehearsal(): void {
    this.#hasRehearsed = true;
    this.#rehearsal = new Rehearsal(this.#plan, this.#router.devices.rehearsalDrivers());
  }

  /** Has rehearsed for a moment; false if somebody calls, or did so just now. */
  #rehearses(rehearsal: Rehearsal): boolean {
    if (this.#parked.count > 0) return false;
    if (this.#poll.wait(1, this.#isQuiet ? 0 : QUIET)) {
      this.#interruptions += 1;
      if (this.#interruptions > ENOUGH || this.#router.devices.rehearsalDrivers().length === 0)
        this.#rehearsal = undefined;
      return false;
    }
    this.#isQuiet = true;
    try {
      const goesOn = this.#router.devices.rehearsalDrivers().length > 0 && rehearsal.step();
      if (!goesOn) this.#rehearsal = undefined;
    } catch (error) {
      this.#rehearsal = undefined;
      if (this.#plan.verbose) warn(`the rehearsal failed: ${messageOf(error)}`);
    }
    return true;
  }

  /** Serves what comes while there is something else to wait for; false if nobody is left that could call. */
  #wait(): boolean {
    this.#parked.wait(this.#workDue);
    const events = this.#parked.events(0);
    if ((events & POLLIN) !== 0) {
      if (this.#listener.receive() && this.#serve(this.#current, 0)) this.#parked.wake(this.#turn.touched);
    } else if ((events & POLLHUP) !== 0) return false;
    else if (this.#parked.events(1) !== 0) {
      if (this.#isDeserted()) return false; // it may have been the last since the poll looked at the listener
      this.#giveUpLastWords(); // others go on, as a daemon does
    }
    this.#retryParked();
    return true;
  }

  #isDeserted(): boolean {
    return this.#poll.wait(1, 0) && (this.#poll.events(0) & (POLLIN | POLLHUP)) === POLLHUP;
  }

  /** One line of JSON for each device. The target has ended, so nobody minds the wait. */
  writeReports(): void {
    const { report } = this.#plan.fds;
    if (report === undefined) return;
    const last = this.#router.devices.reports().map(lineOf);
    for (const line of [...this.#unsent, ...last]) writeSync(report, line);
  }

  /** The report of a device that is served no more. Who reads it must not hold up the target. */
  #sendReport(report: DeviceReport): void {
    const { report: fd } = this.#plan.fds;
    if (fd === undefined) return;
    const line = lineOf(report);
    if (new Outlet(fd).write(Buffer.from(line)) < 0) this.#unsent.push(line);
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
      const { value, error } = this.#ledgers.answer;
      if (this.#ledgers.isOf(call.words)) this.#answerAgain(call, value, error);
      else if (attempt > MAX_ATTEMPTS) this.#listener.respond(call.words, 0, -errnoNumber('EIO'));
      else this.#serve(call, place);
      this.#begun[0] = 1;
      attempts[0] = 0;
      if (place > 0 && !this.#parked.has(place)) this.#clear(place);
    }
  }

  /** Its supervisor was killed when all was done but the answer. */
  #answerAgain(call: Call, value: number, error: number): void {
    this.#recorder?.begin(call);
    this.#listener.respond(call.words, value, error);
    this.#recorder?.end(call, value, error);
  }

  /** Serves the call in a place of the journal; false if it has to wait. */
  #serve(call: Call, place: number): boolean {
    this.#isQuiet = false;
    serving(call.tid);
    const notReady = serve(call, this.#turn, this.#router, this.#recorder);
    serving(0);
    if (notReady === undefined) {
      if (!this.#hasRehearsed && this.#turn.hasTouched) this.#beginRehearsal();
      return true;
    }
    this.#parked.add(place === 0 ? this.#moveAside() : place, notReady, this.#turn.touched);
    return false;
  }

  /** Copies the call being served to a place of its own, where it waits. */
  #moveAside(): number {
    const place = this.#parked.freePlace();
    this.#layout.notification(this.#journal, place).set(this.#layout.notification(this.#journal, 0));
    this.#layout.notification(this.#journal, 0).fill(0);
    return place;
  }

  #retryParked(): void {
    const callIn = (place: number): Call => new Call(this.#layout.notification(this.#journal, place));
    const isWaited = (place: number): boolean => this.#listener.isValid(callIn(place).id);
    for (const place of this.#parked.due(isWaited)) {
      if (!isWaited(place)) this.#recorder?.abandoned(callIn(place));
      else if (!this.#serve(callIn(place), place)) continue;
      this.#parked.remove(place);
      this.#clear(place);
    }
  }

  #clear(place: number): void {
    this.#layout.notification(this.#journal, place).fill(0);
  }
}

function lineOf(report: DeviceReport): string {
  return `${JSON.stringify(report)}\n`;
}
