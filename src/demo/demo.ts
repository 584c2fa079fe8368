import { ShimError } from '../error.ts';
import { within } from '../vmm/deadline.ts';
import type { Qemu } from '../vmm/qemu-command.ts';
import { migrateWithNewVmm } from './part-new-vmm.ts';
import { migrateWithQemu } from './part-qemu.ts';
import { migrateWithSmallVmm } from './part-small-vmm.ts';
import { findQemu } from './qemu.ts';
import type { DemoResult, PartResult } from './result.ts';
import { recordingOf } from './shimmed.ts';
import { mib, milliseconds, type Story } from './story.ts';
import { Workplace } from './workplace.ts';

export interface DemoOptions {
  readonly story: Story;
  /** How `vfio-shim` is called: the beginning of a command. */
  readonly shim: readonly string[];
  /** Use QEMU 7.x if it is installed. */
  readonly qemu: boolean;
  /** Is given the recordings of part 1, of its source and its destination, which are gone afterwards. */
  readonly onRecordings?: ((files: readonly string[]) => void) | undefined;
}

const LIMIT_MS = 40_000;

/** Migrates a device from each protocol to the other's VMM. Throws if anything failed or did not arrive intact. */
export async function runDemo({ story, shim, qemu, onRecordings }: DemoOptions): Promise<DemoResult> {
  const begin = performance.now();
  if (process.platform !== 'linux') {
    throw new ShimError('ERR_KERNEL_FEATURE', `demo: needs Linux, this is ${process.platform}`);
  }
  const found = qemu ? findQemu() : '--no-qemu';
  story.part('Part 1: an old VMM, a process that speaks v1 only, migrates a device whose driver speaks v2 only');
  if (typeof found === 'string') story.text(`Without QEMU (${found}): with a small v1 VMM of this package.`);
  const first = await partOne({ story, shim, onRecordings }, typeof found === 'string' ? undefined : found);
  story.part('Part 2: a new VMM, which speaks v2 only, migrates a device whose driver speaks v1 only');
  const parts = [first, migrateWithNewVmm(story)];
  const result = { ok: true, seconds: (performance.now() - begin) / 1000, parts } as const;
  summarize(story, result);
  return result;
}

async function partOne(
  { story, shim, onRecordings }: Pick<DemoOptions, 'story' | 'shim' | 'onRecordings'>,
  qemu: Qemu | undefined,
): Promise<PartResult> {
  await using workplace = new Workplace();
  const stage = { workplace, story, shim, isRecorded: onRecordings !== undefined };
  try {
    const part = qemu === undefined ? migrateWithSmallVmm(stage) : migrateWithQemu(stage, qemu);
    const result = await within(part, LIMIT_MS, 'part 1');
    onRecordings?.([recordingOf(workplace, 'source'), recordingOf(workplace, 'destination')]);
    return result;
  } catch (error) {
    throw (await workplace.failure()) ?? error; // what happened to a VMM says more than what that caused
  }
}

function summarize(story: Story, { parts, seconds }: DemoResult): void {
  story.part('Proved');
  for (const { vmm, vmmProtocol, device, deviceProtocol, guestMemoryBytes, source, destination, ...speed } of parts) {
    const { mibPerSecond, downtimeSeconds } = speed;
    const rate = `${mibPerSecond.toFixed(0)} MiB/s, downtime ${milliseconds(downtimeSeconds)}`;
    story.text(`- ${vmm} (${vmmProtocol} only) has live-migrated ${device} (${deviceProtocol} only).`);
    story.text(`  ${mib(source.bytes)} of migration data at ${rate}.`);
    story.text('  At the destination the guest reads what it wrote at the source. All its memory on the device,');
    story.text(`  ${mib(guestMemoryBytes)}, is the same at both ends, byte for byte:`);
    story.text(`    source       sha256 ${source.sha256}`);
    story.text(`    destination  sha256 ${destination.sha256}`);
  }
  story.text(`All in ${seconds.toFixed(1)} s.`);
}
