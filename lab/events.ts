/** What the guest tells the host, one JSON object a line, in the file `events` of the results. */
export type LabEvent =
  | { readonly type: 'job'; readonly job: string }
  | CheckEvent
  | NoteEvent
  | { readonly type: 'end'; readonly job: string };

export interface CheckEvent {
  readonly type: 'check';
  readonly job: string;
  readonly name: string;
  readonly ms: number;
  /** Why it failed; `undefined` if it passed. */
  readonly why?: string;
  /** What helps to find out more about a failure. */
  readonly log?: string;
}

/** Something to be told besides. */
export interface NoteEvent {
  readonly type: 'note';
  readonly job: string;
  readonly text: string;
}

/** Names in the directory of results. */
export const EVENTS = 'events';
export const JOBS = 'jobs.json';

/** In the shared project: the directory of the archive that `npm run package` makes, where a guest has one. */
export const ARCHIVES = 'archives';

/** In the guest: where the results are. */
export const RESULTS = '/results';
/** The descriptor on which a job reports its checks to the runner. */
export const REPORT_FD = 3;
