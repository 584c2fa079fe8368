import type { Writable } from 'node:stream';
import { join } from 'node:path';
import { guestHash } from './hash.ts';
import { ShimError } from '../error.ts';
import { v1StateName } from '../v1/states.ts';
import { verified, type PartResult } from './result.ts';
import { ShimmedVmm, type EndName, type Stage } from './shimmed.ts';
import { mib, milliseconds, type Story } from './story.ts';
import type { VmmStep } from './vmm/steps.ts';

const DEVICE = 'qat,size=32M';
const VMM = join(import.meta.dirname, 'vmm-main.js');

/** Part 1 without QEMU: two processes of a small v1 VMM, live over a socket that is descriptor 0 of both. */
export async function migrateWithSmallVmm(stage: Stage): Promise<PartResult> {
  const told: Told = { source: new Map(), destination: new Map() };
  const start = (name: EndName, stdin: 'pipe' | Writable): ShimmedVmm =>
    new ShimmedVmm(stage, {
      name,
      device: DEVICE,
      command: () => [process.execPath, '--no-warnings', VMM, name],
      shown: `node cli/vmm-main.js ${name}`,
      stdin,
      onOutput: (line) => {
        const step = JSON.parse(line) as VmmStep;
        tellOf(stage.story, name, step, told[name].get(step.step));
        told[name].set(step.step, step);
      },
    });
  const destination = start('destination', 'pipe');
  const { stdin: socket } = destination.program;
  const source = start('source', socket);
  socket.destroy(); // theirs alone now: if one ends, the other notices
  const [from, to] = await Promise.all([source.report(), destination.report()]);

  const stopped = step(told, 'source', 'stopped');
  const downtimeSeconds = step(told, 'destination', 'running').at - stopped.at;
  stage.story.step('migration', `completed, downtime ${milliseconds(downtimeSeconds)}`);
  return verified({
    vmm: 'a small v1 VMM',
    vmmProtocol: 'v1',
    device: DEVICE,
    deviceProtocol: from.protocol,
    guestMemoryBytes: step(told, 'source', 'opened').guestMemory,
    writtenSha256: step(told, 'source', 'guest memory').sha256,
    readSha256: step(told, 'destination', 'guest memory').sha256,
    transferSeconds: downtimeSeconds,
    downtimeSeconds,
    source: { states: from.states, bytes: from.bytesOut, buffers: from.buffersOut, sha256: guestHash(from) },
    destination: { states: to.states, bytes: to.bytesIn, buffers: to.buffersIn, sha256: guestHash(to) },
  });
}

type StepName = VmmStep['step'];
/** The last step of each kind that the two ends have told of. */
type Told = Readonly<Record<EndName, Map<StepName, VmmStep>>>;

function step<K extends StepName>(told: Told, end: EndName, name: K): Extract<VmmStep, { step: K }> {
  const found = told[end].get(name);
  if (found !== undefined) return found as Extract<VmmStep, { step: K }>;
  throw new ShimError('ERR_TARGET', `VMM at the ${end}: it never said "${name}"`);
}

/** `last`: the last step of the same kind. */
function tellOf(story: Story, end: EndName, step: VmmStep, last: VmmStep | undefined): void {
  switch (step.step) {
    case 'opened':
      story.step(end, `${step.device}: found a v1 migration region, mapped its ${mib(step.dataSection)} data section`);
      return;
    case 'guest wrote':
      story.step(
        end,
        step.during === 'running'
          ? `the guest has written ${mib(step.bytes)} of random bytes into BAR0`
          : `the guest has written ${mib(step.bytes)} again while pre-copy ran`,
      );
      return;
    case 'device_state':
      if (last?.step === 'device_state' && last.value === step.value) return; // as QEMU, it writes 2 twice
      story.step(end, `the VMM wrote device_state ${step.value}, ${v1StateName(step.value)}`);
      return;
    case 'guest memory':
      if (end === 'destination') story.step(end, `the guest has read ${mib(step.bytes)} from BAR0`);
      return;
    case 'stopped':
    case 'running':
      return;
  }
}
