import { ShimError } from '../../error.ts';
import { isOfVmm, type RecordingHeader, type RecordingLine } from '../../recording/format.ts';
import { readRecording } from '../../recording/reader.ts';
import type { RuleText } from '../rule.ts';
import { askedIn, type Asked } from './asked.ts';
import type { Look, Offence, VmmRule } from './rule.ts';
import { Seen } from './seen.ts';
import { v1VmmRules } from './v1.ts';
import { v2VmmRules } from './v2.ts';

const watchedRules: readonly VmmRule[] = [...v1VmmRules, ...v2VmmRules];

/** What a VMM must do, in both protocols. */
export const vmmRules: readonly RuleText[] = watchedRules;

/** A rule that a VMM has broken. */
export interface Finding extends RuleText {
  /** The line of the recording, from 1 on. */
  readonly line: number;
  /** The device that it was about, by its name in the recording. */
  readonly device: string;
  /** What the VMM did. */
  readonly why: string;
}

/** What is to be said of a recording. */
export interface Judgement {
  readonly findings: readonly Finding[];
  /** So many more there are. */
  readonly omitted: number;
  /** Accesses that were looked at. */
  readonly accesses: number;
  /** The recording goes to the end of what it recorded. */
  readonly isWhole: boolean;
}

/** Findings that are listed. */
const MOST_FINDINGS = 100;
/** Devices that are told apart: a recording has no more. */
const MOST_DEVICES = 256;

/** A device that is looked at, and what may yet turn out to be none. */
interface Watched {
  readonly seen: Seen;
  readonly looks: readonly (readonly [VmmRule, Look])[];
  suspended: Finding[];
}

/** Judges a VMM line by line, with memory that does not grow. */
export class VmmJudge {
  readonly #devices = new Map<string, Watched>();
  readonly #findings: Finding[] = [];
  #omitted = 0;
  #accesses = 0;
  #line = 0;
  #isOfVmm = true;
  #isWhole = false;

  /** The next line. Throws `ERR_FEATURE_UNSUPPORTED` for a recording of a draft, of which there are no rules. */
  take(line: RecordingLine): void {
    this.#line += 1;
    if (line.kind === 'recording') this.#begin(line);
    else if (line.kind === 'end') this.#isWhole = line.why === 'ended';
    else if (line.kind === 'opened' && this.#isOfVmm) this.#forget(line.device);
    const asked = askedIn(line, this.#line, this.#isOfVmm);
    if (asked !== undefined) this.#judge(asked);
  }

  #begin(header: RecordingHeader): void {
    const { present } = header;
    this.#isOfVmm = isOfVmm(header);
    if (present?.startsWith('draft-') === true) throw notCovered(present);
  }

  /** What is known by now, as if the recording ended here. */
  judgement(): Judgement {
    const suspended = [...this.#devices.values()].flatMap((watched) => watched.suspended);
    const all = [...this.#findings, ...suspended].sort((one, other) => one.line - other.line);
    return {
      findings: all.slice(0, MOST_FINDINGS),
      omitted: this.#omitted + Math.max(0, all.length - MOST_FINDINGS),
      accesses: this.#accesses,
      isWhole: this.#isWhole,
    };
  }

  /** Another user has the device: what the one before did is settled. */
  #forget(device: string): void {
    const watched = this.#devices.get(device);
    if (watched === undefined) return;
    for (const finding of watched.suspended) this.#keep(finding);
    this.#devices.delete(device);
  }

  #judge(asked: Asked): void {
    this.#accesses += 1;
    const { device, call } = asked;
    if (call.protocol === 'draft-2018' || call.protocol === 'draft-2019') throw notCovered(call.protocol);
    if (device !== undefined) this.#look(device, this.#watched(device), asked);
    else for (const [name, watched] of this.#devices) this.#look(name, watched, asked); // a container is all devices'
  }

  #look(device: string, watched: Watched, asked: Asked): void {
    const { seen, looks } = watched;
    if (Seen.runs(asked)) watched.suspended = [];
    for (const [rule, look] of looks) {
      const offence = look(asked, seen);
      if (offence !== undefined) this.#found(device, watched, rule, offence, asked.line);
    }
    seen.note(asked);
  }

  #found(device: string, watched: Watched, rule: VmmRule, offence: Offence, at: number): void {
    const { id, sentence, source } = rule;
    const { why, line = at, unlessItRuns } = offence;
    const finding = { id, sentence, source, line, device, why };
    if (unlessItRuns === true && watched.suspended.length < MOST_FINDINGS) watched.suspended.push(finding);
    else this.#keep(finding);
  }

  #keep(finding: Finding): void {
    if (this.#findings.length < MOST_FINDINGS) this.#findings.push(finding);
    else this.#omitted += 1;
  }

  #watched(device: string): Watched {
    let watched = this.#devices.get(device);
    if (watched === undefined) {
      if (this.#devices.size >= MOST_DEVICES) {
        throw new ShimError('ERR_FILE_CORRUPT', `recording: more than ${MOST_DEVICES} devices`, { errno: 'EINVAL' });
      }
      watched = { seen: new Seen(), looks: watchedRules.map((rule) => [rule, rule.watch()] as const), suspended: [] };
      this.#devices.set(device, watched);
    }
    return watched;
  }
}

function notCovered(draft: string): ShimError {
  return new ShimError(
    'ERR_FEATURE_UNSUPPORTED',
    `check: the VMM speaks ${draft}, a proposal before v1, of which no kernel had rules: v1 and v2 are checked`,
    { errno: 'ENOTTY' },
  );
}

/** Judges the VMM of a recording, of which `pieces` are the bytes. Throws what readRecording() throws. */
export function judgeRecording(pieces: Iterable<Uint8Array>): Judgement {
  const judge = new VmmJudge();
  for (const entry of readRecording(pieces)) {
    if (entry.kind !== 'cut') judge.take(entry);
  }
  return judge.judgement();
}

/** A finding for people, in a line. */
export function findingText({ line, device, id, sentence, source, why }: Finding): string {
  return `line ${line}, ${device}: ${id}: ${sentence} Here ${why}. (${source})`;
}
