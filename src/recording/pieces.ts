/** A part of a line that is the same in many. */
export interface Piece {
  /** Which it is, for whoever has the same program. */
  readonly index: number;
  readonly text: string;
}

/** All there are, in one table, so that all processes of a program number them alike: what stands before a field's value, or between. */
const TEXTS = {
  END: '"',
  COMMA: ',',
  ACCESS_BEGIN: '{"kind":"access","begin":',
  OPENED_TIME: '{"kind":"opened","time":',
  CLOSED_TIME: '{"kind":"closed","time":',
  DRIVER_TIME: '{"kind":"driver","time":',
  US: ',"us":',
  PID: ',"pid":',
  TID: ',"tid":',
  DEVICE: ',"device":',
  NODE: ',"node":',
  CALL: ',"call":{',
  END_OF_CALL: '}',
  RESULT: '},"result":',
  DRIVER: ',"driver":[{"time":',
  NEXT_DRIVER: '},{"time":',
  END_OF_DRIVER: '}]',
  END_OF_LINE: '}\n',
  PROTOCOL: '"protocol":"',
  CALL_NAME: '","call":"',
  ERRNO: ',"errno":"',
  ACCESS: ',"access":"',
  REGISTER: '","register":"',
  DIRECTION: ',"direction":"',
  STATE: ',"state":"',
  VALUE: ',"value":',
  OFFSET: ',"offset":',
  BYTES: ',"bytes":',
  INITIAL_BYTES: ',"initialBytes":',
  DIRTY_BYTES: ',"dirtyBytes":',
  SESSION: ',"session":true',
  NO_SESSION: ',"session":false',
  REINIT: ',"reinit":true',
  NO_REINIT: ',"reinit":false',
  WANTED: ',"wanted":true',
  NOT_WANTED: ',"wanted":false',
} as const;

const names = Object.keys(TEXTS) as (keyof typeof TEXTS)[];

export const pieces = Object.fromEntries(names.map((name, index) => [name, { index, text: TEXTS[name] }])) as Readonly<
  Record<keyof typeof TEXTS, Piece>
>;

/** The text of the piece with this index. */
export function pieceText(index: number): string {
  const name = names[index];
  if (name === undefined) throw new RangeError(`no piece ${index}`);
  return TEXTS[name];
}
