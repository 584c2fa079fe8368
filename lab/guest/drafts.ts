import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Draft } from '../../src/v1/drafts/device.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { assertHarried, runDraftClient } from './client.ts';
import { BAR_SIZE, V1Mem, type V1Data } from './v1mem.ts';

export const DRAFTS: readonly Draft[] = ['draft-2018', 'draft-2019'];
export const SECTION = ['--data-size', '64K'];

/** Has programs of a draft take a v1 device's state into another one; `kill`: supervisors, before each access to a register. */
export async function assertDraftMoves(
  bed: TestBed,
  draft: Draft,
  data: V1Data,
  { run = [] as readonly string[], kill = false } = {},
): Promise<void> {
  const bytes = randomBytes(BAR_SIZE);
  const [source, destination] = [new V1Mem(data), new V1Mem(data)];
  source.fillBar(bytes);
  const file = bed.path('state');
  const options = kill ? ['--interrupt'] : [];
  const under = [...SECTION, ...run];
  const saved = await runDraftClient(bed, 'saver', draft, ['save', file, ...options], source, under);
  const loaded = await runDraftClient(bed, 'restorer', draft, ['restore', file, ...options], destination, under);
  for (const result of kill ? [saved, loaded] : []) assertHarried(result);
  assert.ok(source.bar().equals(bytes), 'the source is what it was');
  assert.ok(destination.bar().equals(bytes), 'the destination has got it');
}
