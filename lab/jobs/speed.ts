import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { migrateLive, queryMigration, type MigrationParameters } from '../../src/vmm/migration.ts';
import { check, note } from '../guest/check.ts';
import { NEW, OLD, ROUND, assertArrived, startDestination, startSource, type End } from '../guest/pair.ts';
import { memoryArgs, writeUsedMemory } from '../guest/used-memory.ts';

/**
 * Long: what the bridge costs on a real driver. QEMU 7.2 under run against native QEMU 10.0, in turns; both halves of the bridge
 * against neither, with the same QEMU; and what the two QEMUs take without a device, which is what no bridge can change. The
 * processor is emulated, some thirty times slower than a real one: without a limit for the network, which is what a migration
 * waits for on a host, what is compared is how many instructions the programs take.
 */

const ROUNDS = 7;
/** Both VMs have been running for a while when they are migrated, in milliseconds. */
const SETTLING = 1000;
const memory = 128 * 2 ** 20;
const used = join(tmpdir(), 'used-memory');

interface Load {
  readonly title: string;
  readonly from: readonly string[];
  readonly to: readonly string[];
  readonly parameters?: MigrationParameters;
}

const loads: readonly Load[] = [
  {
    title: '128 MiB in use, 32 MiB/s',
    from: memoryArgs(memory, used),
    to: memoryArgs(memory),
    parameters: { 'max-bandwidth': 32 * 2 ** 20, 'downtime-limit': 300 },
  },
  { title: '64 MiB of zeros, no limit', from: [], to: [] },
];

const contenders = {
  ours: { title: '7.2 under run', end: OLD },
  baseline: { title: '10.0 native', end: NEW },
  bothHalves: { title: '10.0 under run --round-trip', end: ROUND },
  oldAlone: { title: '7.2 without a device', end: { qemu: '7.2', devices: 0 } },
  newAlone: { title: '10.0 without a device', end: { qemu: '10.0', devices: 0 } },
} as const satisfies Record<string, { readonly title: string; readonly end: End }>;
type Contender = keyof typeof contenders;

interface Times {
  readonly total: number;
  readonly downtime: number;
}

async function migrate(name: string, end: End, seed: number, load: Load): Promise<Times> {
  let times: Times | undefined;
  await check(name, async (bed) => {
    const [source, destination] = await Promise.all([
      startSource(bed, { ...end, options: { args: load.from } }, seed),
      startDestination(bed, { ...end, options: { args: load.to } }),
    ]);
    await setTimeout(SETTLING);
    const { parameters } = load;
    const options = { returnPath: true, ...(parameters && { parameters }) };
    await migrateLive(source.vm, destination.vm, bed.path('migration'), options);
    const { 'total-time': total = Number.NaN, downtime = Number.NaN } = await queryMigration(source.vm);
    times = { total, downtime };
    await assertArrived(bed, source, destination, seed);
  });
  if (times === undefined) throw new Error(`${name}: it has no times`);
  return times;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

writeUsedMemory(used, memory);
for (const load of loads) {
  const rounds: Record<Contender, Times>[] = [];
  for (let round = 1; round <= ROUNDS; round += 1) {
    const times: Partial<Record<Contender, Times>> = {};
    for (const [key, { title, end }] of Object.entries(contenders)) {
      times[key as Contender] = await migrate(`${load.title}: ${title}, round ${round}`, end, 0x40 + round, load);
    }
    rounds.push(times as Record<Contender, Times>);
  }
  for (const what of ['total', 'downtime'] as const) {
    const of = (who: Contender): number => median(rounds.map((times) => times[who][what]));
    const against = (a: Contender, b: Contender): string =>
      `${contenders[a].title} ${of(a)} ms, ${contenders[b].title} ${of(b)} ms, ratio ${(of(a) / of(b)).toFixed(2)}`;
    for (const [a, b] of [
      ['ours', 'baseline'],
      ['bothHalves', 'baseline'],
      ['oldAlone', 'newAlone'],
    ] as const) {
      note(`${load.title}, ${what}: ${against(a, b)} (medians of ${ROUNDS} rounds)`);
    }
  }
}
