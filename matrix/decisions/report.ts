import { LOOKS } from '../../tools/vmm/switchover.ts';
import { inColumns, type Versions } from '../report.ts';
import {
  declared,
  DMA_WINDOW,
  dmaOf,
  DOWNTIME_LIMIT,
  driverOf,
  ENDS,
  inUnits,
  inWords,
  isReason,
  KIB,
  rowOf,
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
- **stops it within the limit**: what the driver gave after the stop is no more than the bandwidth moves in the limit, or than the bandwidth that
  QEMU 7.2 measured, if it was more. How long the VM was down is not compared: after the stop, QEMU sends as fast as it can.
- **does not stop the VM**: QEMU looked ${LOOKS} times more than it takes to send what the device gives in pre-copy, and did not. The migration
  was cancelled then, and the row says what was sent of the device if QEMU tells: 7.2 does not.
- **rounds**: how often it looked for dirty memory (\`dirty-sync-count\`). The number depends on the pieces in which the state comes, and
  on the machine, as does what was left for the stop.
- **told**: what was left of the device by its own word when QEMU looked last: pending_bytes, or MIG_DATA_SIZE. It is from QEMU's trace
  (\`vfio_update_pending\`, \`vfio_state_pending_exact\`), as is what was pending in all, and what QEMU 7.2 took for fitting. The run fails if QEMU
  stopped the VM though what was pending in all did not fit, or did not stop it though it did. \`vendor-v1\` counts a buffer twice that is ready and was
  not taken, and MIG_DATA_SIZE of \`mlx5\` leaves out the headers of records.
- **DMA**: how many pages of the guest's memory the device writes to in a second while it runs, within
  ${inUnits(DMA_WINDOW.size)}. **dirty** is what QEMU had to send of the memory when it had looked, the median of all looks. QEMU 7.2 hears of these
  pages from the container; QEMU 10 from a device with a v2 driver, and from the container if the driver speaks v1. Whoever tells, it should be as
  much, as far as the machine lets QEMU look as often.

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
    `${rowOf(each)}${numberOf(each)}`,
    dmaOf(each),
    ...ENDS.map((end) => `${driverOf(each, end)}: ${inWords(decisions[end], each)}; ${howOf(decisions[end], each)}`),
  ]);
  const table = inColumns(['QEMU, state, bandwidth', 'DMA', ...ENDS], rows);
  return `${HEAD}${programs}\n${table}${notes === '' ? '' : `\n## Why\n\n${notes}`}`;
}

function howOf({ stopped, rounds, before, behind, last, dirty }: Decision, { dma }: Case): string {
  const parts = [
    ...(before === undefined ? [] : [`${kib(before)} ${stopped ? 'before' : 'sent'}`]),
    ...(stopped ? [`${kib(behind)} after`] : []),
  ];
  const told = `told ${last.device < KIB ? `${last.device} B` : kib(last.device)}`;
  return [`${rounds} rounds`, ...parts, told, ...(dma === undefined ? [] : [`dirty ${kib(dirty)}`])].join(', ');
}

const kib = (bytes: number): string => `${Math.ceil(bytes / KIB)} KiB`;

/** The cases that have not come out as declared, or not for the reason that QEMU has. */
export function surprises(decided: Decided): Case[] {
  const isDeclared = ([each, decisions]: [Case, Readonly<Record<End, Decision>>]): boolean =>
    ENDS.every((end) => inWords(decisions[end], each) === declared(each, end) && isReason(decisions[end], each));
  return [...decided].filter((entry) => !isDeclared(entry)).map(([each]) => each);
}
