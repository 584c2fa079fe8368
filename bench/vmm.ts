import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fetchQemu, isToBeFetched, missingQemu, type QemuVersion } from '../test/real/binaries.ts';
import { listen, startMigration, waitForMigration, type MigrationInfo } from '../test/real/migration.ts';
import { Child, killHard } from '../test/real/processes.ts';
import { qemuCommand, Vm } from '../test/real/qemu.ts';
import { poll } from '../test/real/wait.ts';
import { parseSpec } from '../src/sim/spec.ts';
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

/** The largest that QEMU takes: the VM is stopped as soon as QEMU asks itself whether it may be. */
const unlimited = { 'max-bandwidth': 2 ** 50, 'downtime-limit': 2_000_000 };

/** The VMs of one migration, both under the interposer. They end with it, or with this process. */
class Bed implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), 'vfio-shim-bench-'));
  readonly #children: Child[] = [];
  readonly #vms: Vm[] = [];
  readonly #abandon = (): void => {
    for (const { pid, exit } of this.#children) if (pid !== undefined && exit === undefined) killHard(pid);
    rmSync(this.#directory, { recursive: true, force: true });
  };

  constructor() {
    process.once('exit', this.#abandon);
  }

  path(name: string): string {
    return join(this.#directory, name);
  }

  async start(name: string, cli: string, spec: string, { qemu, present }: Side, incoming = false): Promise<Vm> {
    const sysfs = this.path(`${name}.sysfs`);
    mkdirSync(sysfs);
    const prefix = interposed(cli, ['--present', present, '--device', spec, '--sysfs', sysfs], []);
    const vfio = [join(sysfs, '0000:90:00.0')];
    const child = new Child(qemuCommand(this.path(name), { qemu, prefix, vfio, incoming }), process.env);
    this.#children.push(child);
    const vm = await Vm.attach(child, this.path(name), patience);
    this.#vms.push(vm);
    return vm;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#abandon);
    for (const vm of this.#vms) vm.disconnect();
    this.#abandon();
    await Promise.all(this.#children.map(({ exited }) => exited));
  }
}

function milliseconds(info: MigrationInfo, key: 'total-time' | 'downtime'): number {
  const value = info[key];
  if (value === undefined) throw new Error(`query-migrate: no ${key}`);
  return value;
}

/** Migrates a running VM over a UNIX socket; what the source's QEMU says it took. */
async function migrate(cli: string, spec: string, side: Side): Promise<Sample> {
  await using bed = new Bed();
  const source = await bed.start('source', cli, spec, side);
  const destination = await bed.start('destination', cli, spec.replace(/,seed=\d+/, ''), side, true);
  await source.waitForFirmware();
  const uri = await listen(destination, bed.path('migration'));
  await setTimeout(SETTLING);
  await startMigration(source, uri, { parameters: unlimited, returnPath: true });
  // without questions meanwhile, which QEMU's main loop would answer
  await poll(() => finished(source), patience, `the migration of ${spec} to end`);
  const info = await waitForMigration(source, 'completed');
  await waitForMigration(destination, 'completed');
  await destination.waitForStatus('running');
  const total = milliseconds(info, 'total-time');
  // not QEMU's own count, which 7.2 has not filled in by then
  const rate = parseSpec(spec).size / MiB / (total / 1000);
  return { total, downtime: milliseconds(info, 'downtime'), rate };
}

const ends: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled']);

/** True once QEMU has announced the end of a migration, whichever. */
function finished(vm: Vm): true | undefined {
  const ended = vm.qmp.events.some(({ event, data }) => event === 'MIGRATION' && ends.has(String(data['status'])));
  if (!ended && vm.child.fate !== undefined) throw new Error(`VM ${vm.name}: ${vm.child.fate}`);
  return ended || undefined;
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
      if ([ours.qemu, baseline.qemu].some(isToBeFetched)) await fetchQemu();
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
