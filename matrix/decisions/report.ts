import { inColumns, type Versions } from '../report.ts';
import {
  declared,
  DOWNTIME_LIMIT,
  driverOf,
  ENDS,
  inWords,
  KIB,
  titleOf,
  type Case,
  type Decision,
  type End,
} from './case.ts';

export type Decided = ReadonlyMap<Case, Readonly<Record<End, Decision>>>;

const HEAD = `# What a VMM decides

Written by \`npm run decisions\`, which let each QEMU migrate a VM twice: with an [emulated device](devices.md) whose driver speaks its
protocol, and with the twin whose driver speaks the other, across the bridge. QEMU has only the device's numbers to tell when to stop the
VM: pending_bytes, or what pre-copy has left and MIG_DATA_SIZE. They should lead to the same decision, and if they
do not, the note says what the drivers tell.

- The guest is idle, \`downtime-limit\` is ${DOWNTIME_LIMIT} ms, and \`max-bandwidth\` as the row says; QEMU 10 is told it as
  \`avail-switchover-bandwidth\` too. The state goes into a file.
- **stops it within the limit**: what the driver gave after the stop is no more than the bandwidth moves in the limit. How long the VM was
  down is not compared: after the stop, QEMU sends as fast as it can.
- **does not stop the VM**: QEMU looked fifty times with nothing more to send, and did not.
- **rounds**: how often it looked for dirty memory (\`dirty-sync-count\`). The number depends on the pieces in which the state comes, and
  on the machine, as does what was left for the stop.
- **DMA**: whether the device writes to the guest's memory. None does.

`;

export function render(decided: Decided, versions: Versions): string {
  const programs = [...new Set([...decided.keys()].map(({ qemu }) => qemu))]
    .map((name) => `- ${name}: ${versions.get(name)}\n`)
    .join('');
  const whys = [...new Set([...decided.keys()].flatMap(({ difference }) => difference?.why ?? []))];
  const notes = whys.map((why, index) => `${index + 1}. ${why}\n`).join('');
  const numberOf = ({ difference }: Case): string =>
    difference === undefined ? '' : ` (${whys.indexOf(difference.why) + 1})`;
  const rows = Array.from(decided, ([each, decisions]) => [
    `${titleOf(each)}${numberOf(each)}`,
    'no',
    ...ENDS.map((end) => `${driverOf(each, end)}: ${inWords(decisions[end], each)}; ${howOf(decisions[end])}`),
  ]);
  const table = inColumns(['QEMU, state, bandwidth', 'DMA', ...ENDS], rows);
  return `${HEAD}${programs}\n${table}${notes === '' ? '' : `\n## Why\n\n${notes}`}`;
}

function howOf({ stopped, rounds, before, behind }: Decision): string {
  const sent = stopped ? `${kib(before)} before, ${kib(behind)} after` : `${kib(before)} sent`;
  return `${rounds} rounds, ${sent}`;
}

const kib = (bytes: number): string => `${Math.ceil(bytes / KIB)} KiB`;

/** The cases that have not come out as declared. */
export function surprises(decided: Decided): Case[] {
  const isDeclared = ([each, decisions]: [Case, Readonly<Record<End, Decision>>]): boolean =>
    ENDS.every((end) => inWords(decisions[end], each) === declared(each, end));
  return [...decided].filter((entry) => !isDeclared(entry)).map(([each]) => each);
}
