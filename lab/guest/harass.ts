import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { CRAWL, FULL_SPEED, listen, setParameters, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { assertGoesOn, startBoth, type End } from './pair.ts';
import { killSupervisor } from './serving.ts';

/** How many successors have taken over. */
export const successors = ({ child }: Vm): number => child.stderr.split('a successor takes over').length - 1;

/** A migration during which as many as `kills` supervisors are killed at each end; two of them in pre-copy. */
export async function migrateHarassed(bed: TestBed, end: End, kills: number, seed: number): Promise<void> {
  const both = await startBoth(bed, end, end, seed);
  await harass(bed, both.source.vm, both.destination.vm, kills);
  await assertGoesOn(both.destination, seed);
}

/** Migrates so between two VMs whose runs are known by the names of the VMs. */
export async function harass(bed: TestBed, source: Vm, destination: Vm, kills: number): Promise<void> {
  const uri = await listen(destination, bed.path('migration'));
  await startMigration(source, uri, { parameters: CRAWL, returnPath: true });
  const migration = { goesOn: true };
  let fast: Promise<unknown> = Promise.resolve();
  const kill = async (name: string): Promise<void> => {
    for (let count = 1; count <= kills && migration.goesOn; count += 1) {
      await killSupervisor(name);
      if (name === source.name && count === 2) fast = setParameters(source, FULL_SPEED);
      await sleep(Math.random() * 200); // whatever it is at by then
    }
  };
  const killing = Promise.all([kill(source.name), kill(destination.name)]);
  await waitForMigration(source, 'completed', 60_000);
  await waitForMigration(destination, 'completed', 60_000);
  migration.goesOn = false;
  await Promise.all([killing, fast]);
  assert.ok(successors(source) >= 3 && successors(destination) >= 2);
}
