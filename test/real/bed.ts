import { afterEach, beforeEach, expect } from 'vitest';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { patient } from '../support/patience.ts';

/** Gives each test a bed of its own; a process that outlives its test fails it, and a failed test shows its VMs. */
export function useTestBed(): () => TestBed {
  let bed: TestBed | undefined;
  beforeEach(() => {
    bed = new TestBed();
  });
  afterEach(async ({ task }) => {
    const used = bed;
    bed = undefined;
    if (used === undefined) return;
    const story = task.result?.state === 'fail' ? used.describe() : '';
    const left = await used.cleanUp();
    if (story !== '') console.error(story);
    expect(left, 'processes that outlived the test').toEqual([]);
  }, patient(30_000));
  return () => {
    if (bed === undefined) throw new Error('a test bed exists only while a test runs');
    return bed;
  };
}
