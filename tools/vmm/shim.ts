import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DeviceReport } from '../../src/interpose/serve/report.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { CLI, requireCli } from './cli.ts';
import type { FoundProcess } from './processes.ts';
import type { VmOptions, TestBed } from './test-bed.ts';

/** A simulated device, as far as these tests configure one. */
export interface DeviceOptions {
  /** A whole SPEC, in the place of all else. */
  readonly spec?: string;
  readonly driver?: string;
  /** Guest-visible memory, e.g. `16M`. */
  readonly size?: string;
  /** The memory begins with a pattern. */
  readonly seed?: number;
  readonly compat?: number | undefined;
  readonly fault?: string | undefined;
  /** vendor-v1: refuses transactions that are not the source's. */
  readonly strict?: boolean;
  /** vendor-v1: has the habits of libvfio-user's v1 servers. */
  readonly libvfio?: boolean;
  /** vendor-v1: pages that it dirties itself with every buffer. */
  readonly dirty?: number;
  /** Pages of the guest's memory that it writes to in a second. */
  readonly dma?: number;
  /** Where, e.g. `32M+4K`. */
  readonly dmaAt?: string;
  /** Tells nobody of these. */
  readonly dmaLog?: 'off';
  /** Writes to the other devices too. */
  readonly dmaPeers?: boolean;
}

/** How a VM is run: its devices are presented in the protocol it knows unless told otherwise. */
export interface ShimOptions extends VmOptions {
  /** Options of `run`, e.g. `--present v2`. */
  readonly run?: readonly string[];
  /** What QEMU runs under within `run`, e.g. `env NAME=VALUE`. */
  readonly under?: readonly string[];
  /** Milliseconds that the start may take: a large device has to be filled first. */
  readonly patience?: number;
}

/** The one place that knows how `--device` spells it. */
function deviceSpec({
  spec,
  driver = 'qat',
  size = '16M',
  seed,
  compat,
  fault,
  strict,
  libvfio,
  dirty,
  dma,
  dmaAt,
  dmaLog,
  dmaPeers,
}: DeviceOptions = {}): string {
  if (spec !== undefined) return spec;
  const options = [
    `size=${size}`,
    ...(seed === undefined ? [] : [`seed=${seed}`]),
    ...(compat === undefined ? [] : [`compat=${compat}`]),
    ...(fault === undefined ? [] : [`fault=${fault}`]),
    ...(strict === true ? ['strict=1'] : []),
    ...(libvfio === true ? ['libvfio=1'] : []),
    ...(dirty === undefined ? [] : [`dirty=${dirty}`]),
    ...(dma === undefined ? [] : [`dma=${dma}`]),
    ...(dmaAt === undefined ? [] : [`dma-at=${dmaAt}`]),
    ...(dmaLog === undefined ? [] : [`dma-log=${dmaLog}`]),
    ...(dmaPeers === true ? ['dma-peers=1'] : []),
  ];
  return [driver, ...options].join(',');
}

/** Starts a VM with these devices under `vfio-shim run`. With `vfio: []` they are there, and not plugged in. */
export async function startShimmedVm(
  bed: TestBed,
  name: string,
  devices: readonly DeviceOptions[],
  { run = [], under = [], patience, ...options }: ShimOptions = {},
): Promise<Vm> {
  requireCli();
  const sysfs = bed.path(`${name}.sysfs`);
  mkdirSync(sysfs);
  const specs = devices.flatMap((device) => ['--device', deviceSpec(device)]);
  const prefix = [process.execPath, CLI, 'run', ...run, ...specs, '--sysfs', sysfs, '--json', '--', ...under];
  const vfio = devices.map((_, index) => join(sysfs, `0000:${(0x90 + index).toString(16)}:00.0`));
  return bed.startVm(name, { vfio, ...options, prefix }, patience);
}

/** The processes of ours that serve a VM: they are told by the plan that is their argument. */
export function serving(bed: TestBed, program: 'keeper-main' | 'supervisor-main', vm: Vm): number[] {
  const sysfs = JSON.stringify(bed.path(`${vm.name}.sysfs`));
  const isTheirs = ({ commandLine }: FoundProcess): boolean =>
    commandLine.includes(`/${program}.`) && commandLine.includes(sysfs);
  return bed
    .processes()
    .filter(isTheirs)
    .map(({ pid }) => pid);
}

/** What `run --json` printed at its end, one object per device in the order of `--device`. */
function deviceReports(vm: Vm): DeviceReport[] {
  return vm.child.stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as DeviceReport);
}

/** Ends a VM and returns the reports of its devices; `sha256` is of all their final guest-visible memory. */
export async function quitAndReports(vm: Vm, ms?: number): Promise<DeviceReport[]> {
  await vm.quit(ms);
  const reports = deviceReports(vm);
  if (reports.length === 0 || !reports.every(({ sha256 }) => /^[0-9a-f]{64}$/.test(String(sha256)))) {
    throw new Error(`run --json of VM ${vm.name} printed no report: ${vm.child.stdout}\n${vm.child.stderr}`);
  }
  return reports;
}

/** The same, of the first device. */
export async function quitAndReport(vm: Vm, ms?: number): Promise<DeviceReport> {
  const [report] = await quitAndReports(vm, ms);
  if (report === undefined) throw new Error('no device');
  return report;
}
