import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { parseSpec } from '../src/sim/spec.ts';
import { listen, startMigration, waitForMigration, type MigrationInfo } from '../src/vmm/migration.ts';
import type { Vm } from '../src/vmm/vm.ts';
import { fetchQemu, isToBeFetched, missingQemu, type QemuVersion } from '../tools/vmm/binaries.ts';
import { waitForMigrationEnd } from '../tools/vmm/events.ts';
import { AT_ONCE } from '../tools/vmm/switchover.ts';
import { TestBed } from '../tools/vmm/test-bed.ts';
import type { Benchmark, Row } from './benchmark.ts';
import type { Sample } from './paired.ts';
import { interposed } from './programs.ts';

/** A QEMU whose devices are presented in the one protocol that it knows. */
interface Side {
  readonly qemu: QemuVersion;
  readonly present: 'v1' | 'v2';
}

const old: Side = { qemu: '7.2', present: 'v1' };
const young: Side = { qemu: '10.0', present: 'v2' };

const MiB = 2 ** 20;
const patience = 120_000;
/** Both VMs have been there for a while when one is migrated, as on a host, in milliseconds. */
const SETTLING = 500;

/** Starts one VM of a migration, under the interposer. */
function start(bed: TestBed, name: string, cli: string, spec: string, side: Side, incoming = false): Promise<Vm> {
  const sysfs = bed.path(`${name}.sysfs`);
  mkdirSync(sysfs);
  const prefix = interposed(cli, ['--present', side.present, '--device', spec, '--sysfs', sysfs], []);
  const vfio = [join(sysfs, '0000:90:00.0')];
  return bed.startVm(name, { qemu: side.qemu, prefix, vfio, incoming }, patience);
}

function milliseconds(info: MigrationInfo, key: 'total-time' | 'downtime'): number {
  const value = info[key];
  if (value === undefined) throw new Error(`query-migrate: no ${key}`);
  return value;
}

/** Migrates a running VM over a UNIX socket; what the source's QEMU says it took. */
async function migrate(cli: string, spec: string, side: Side): Promise<Sample> {
  await using bed = new TestBed();
  const source = await start(bed, 'source', cli, spec, side);
  const destination = await start(bed, 'destination', cli, spec.replace(/,seed=\d+/, ''), side, true);
  await source.waitForFirmware();
  const uri = await listen(destination, bed.path('migration'));
  await setTimeout(SETTLING);
  await startMigration(source, uri, { parameters: AT_ONCE, returnPath: true });
  await waitForMigrationEnd(source, patience);
  const info = await waitForMigration(source, 'completed');
  await waitForMigration(destination, 'completed');
  await destination.waitForStatus('running');
  const total = milliseconds(info, 'total-time');
  // not QEMU's own count, which 7.2 has not filled in by then
  const rate = parseSpec(spec).size / MiB / (total / 1000);
  return { total, downtime: milliseconds(info, 'downtime'), rate };
}

function rowsOf(title: string): Row[] {
  const target = { bound: 'at most', value: 1.15 } as const;
  return [
    { key: 'total', title: `${title}: total time`, unit: 'ms', compare: 'ratio', target },
    { key: 'downtime', title: `${title}: downtime`, unit: 'ms', compare: 'ratio', target },
    { key: 'rate', title: `${title}: device data`, unit: 'MiB/s', compare: 'ratio' },
  ];
}

function compare(spec: string, rounds: number, ours: Side, baseline: Side): Benchmark {
  const [driver, size] = /^(.*),size=(\w+)/.exec(spec)?.slice(1) ?? [];
  return {
    name: 'vmm',
    about: `live migration of ${driver}, ${size}: QEMU ${ours.qemu}, bridged, against QEMU ${baseline.qemu}, native`,
    rounds,
    rows: rowsOf(`vmm: QEMU ${ours.qemu} on ${driver}, ${size}`),
    missing() {
      const versions = [ours.qemu, baseline.qemu].filter((version) => !isToBeFetched(version));
      return versions.flatMap((version) => missingQemu(version) ?? [])[0];
    },
    async prepare({ cli }) {
      for (const version of new Set([ours.qemu, baseline.qemu].filter(isToBeFetched))) await fetchQemu(version);
      return { ours: () => migrate(cli, spec, ours), baseline: () => migrate(cli, spec, baseline) };
    },
  };
}

/** Each QEMU through the bridge, against the one that knows the driver's protocol. */
export const vmm: readonly Benchmark[] = [
  compare('qat,size=256M,seed=1', 5, old, young),
  compare('qat,size=2G,seed=1', 2, old, young),
  compare('vendor-v1,size=256M,seed=1', 5, young, old),
];
