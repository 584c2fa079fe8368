import { fromDraft } from '../../src/bridge/from-draft.ts';
import { presentDraft2018 } from '../../src/bridge/present-draft-2018.ts';
import { presentDraft2019 } from '../../src/bridge/present-draft-2019.ts';
import type { PresentDraftOptions } from '../../src/bridge/present-draft.ts';
import { presentV1 } from '../../src/bridge/present-v1.ts';
import { createSim, parseSpec } from '../../src/sim/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { Draft, DraftDevice } from '../../src/v1/drafts/device.ts';
import { Draft2018Save } from '../../src/v1/drafts/save-2018.ts';
import { Draft2019Save } from '../../src/v1/drafts/save-2019.ts';
import type { WaitForDevice } from '../../src/wait.ts';

export const GENERATIONS = ['draft-2018', 'draft-2019'] as const satisfies readonly Draft[];

export function presentDraft(draft: Draft, device: V1Device, options: PresentDraftOptions = {}): DraftDevice {
  return draft === 'draft-2018' ? presentDraft2018(device, options) : presentDraft2019(device, options);
}

export function draftSave(
  device: DraftDevice,
  sink: (buffer: Uint8Array) => void,
  wait?: WaitForDevice,
): Draft2018Save | Draft2019Save {
  return device.draft === 'draft-2018' ? new Draft2018Save(device, sink, wait) : new Draft2019Save(device, sink, wait);
}

/** A simulated device of any protocol, as a v1 device: with presentV1 or fromDraft in between, if it is none. */
export function simInV1(
  text: string,
  section = 64 * 1024,
): { device: V1Device; bar: Uint8Array; loadsOnStop: boolean } {
  const sim = createSim(parseSpec(text));
  const { bar } = sim;
  switch (sim.protocol) {
    case 'v1':
      return { device: sim.device, bar, loadsOnStop: false };
    case 'v2':
      return { device: presentV1(sim.device, { dataSection: new Uint8Array(section) }), bar, loadsOnStop: true };
    default:
      return { device: fromDraft(sim.device), bar, loadsOnStop: sim.protocol === 'draft-2018' };
  }
}

/** A simulated device of any protocol, presented as a draft. */
export function simInDraft(
  draft: Draft,
  text: string,
  options: PresentDraftOptions = {},
): { device: DraftDevice; bar: Uint8Array } {
  const { device, bar, loadsOnStop } = simInV1(text);
  return { device: presentDraft(draft, device, { stopAfterLoad: loadsOnStop, ...options }), bar };
}
