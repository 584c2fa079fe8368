import type { Writable } from 'node:stream';
import { ShimError } from '../error.ts';
import type { DeviceReport } from '../interpose/serve/report.ts';
import { parseSpec } from '../sim/spec.ts';
import { planDevice } from '../interpose/run/plan-device.ts';
import type { Program } from './program.ts';
import { inBoth, mib, type Story } from './story.ts';
import type { Workplace } from './workplace.ts';

/** What a part of the demo works with. */
export interface Stage {
  readonly workplace: Workplace;
  readonly story: Story;
  /** How `vfio-shim` is called: the beginning of a command. */
  readonly shim: readonly string[];
  /** Each end is recorded, in the workplace. */
  readonly isRecorded: boolean;
}

export type EndName = 'source' | 'destination';

export interface VmmOptions {
  readonly name: EndName;
  /** A simulated device, as `--device` describes it. */
  readonly device: string;
  /** The VMM's command line, given the sysfs directory of its device. */
  readonly command: (sysfsdev: string) => readonly string[];
  /** The command line as the story tells it. */
  readonly shown: string;
  readonly stdin?: 'pipe' | Writable;
  readonly onOutput?: (line: string) => void;
  readonly onError?: (line: string) => boolean;
}

/** A VMM, a process of its own, under `vfio-shim run`; what that reports at the end. */
export class ShimmedVmm {
  readonly name: EndName;
  readonly program: Program;
  readonly #story: Story;
  #report: DeviceReport | undefined;

  constructor(
    { workplace, story, shim, isRecorded }: Stage,
    { name, device, command, shown, onOutput, ...options }: VmmOptions,
  ) {
    const sysfs = workplace.path(`${name}.sysfs`);
    const { name: address } = planDevice(0, device, parseSpec(device), 4096); // as `run` will plan it
    const record = isRecorded ? ['--record', recordingOf(workplace, name)] : [];
    const run = [
      'run',
      ...record,
      '--device',
      device,
      '--sysfs',
      sysfs,
      '--json',
      '--',
      ...command(`${sysfs}/${address}`),
    ];
    this.name = name;
    this.#story = story;
    story.step(name, `vfio-shim run --device ${device} -- ${shown}`);
    this.program = workplace.start([...shim, ...run], {
      name: `VMM at the ${name}`,
      onOutput: (line) => {
        const report = asReport(line);
        if (report === undefined) onOutput?.(line);
        else this.#report = report;
      },
      ...options,
    });
  }

  /** Waits until the VMM has ended well, and tells what its device's driver went through. */
  async report(): Promise<DeviceReport> {
    await this.program.succeed(30_000);
    const report = this.#report;
    if (report === undefined) throw new ShimError('ERR_TARGET', `${this.program.name}: run --json printed no report`);
    const { protocol, states, trappedCalls } = report;
    const [bytes, buffers, way] =
      this.name === 'source' ? [report.bytesOut, report.buffersOut, 'out'] : [report.bytesIn, report.buffersIn, 'in'];
    this.#story.step(this.name, `the ${protocol} driver was in ${states.map(inBoth).join(', ')}`);
    this.#story.step(this.name, `${mib(bytes)} ${way}, ${buffers} v1 buffers, ${trappedCalls} trapped calls`);
    return report;
  }
}

/** Where the recording of an end is. */
export function recordingOf(workplace: Workplace, name: EndName): string {
  return workplace.path(`${name}.jsonl`);
}

function asReport(line: string): DeviceReport | undefined {
  if (!line.startsWith('{')) return undefined;
  const value = JSON.parse(line) as DeviceReport;
  return 'trappedCalls' in value ? value : undefined;
}
