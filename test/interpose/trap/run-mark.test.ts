import { expect, it } from 'vitest';
import { BorrowedFd } from '../../../src/interpose/bridged/borrowed-fd.ts';
import { kernelReach } from '../../../src/interpose/bridged/reach.ts';
import { markPlace, placeOf } from '../../../src/interpose/trap/run-mark.ts';
import { openAnew } from '../../../src/sys/file.ts';
import { createSharedMemory } from '../../../src/sys/memory.ts';
import { Child } from '../../../src/vmm/child.ts';

const { pid } = process;

it('a device that another run has handed over is none of the devices of this one', async () => {
  using file = createSharedMemory('device', 0);
  using theirs = openAnew(file.number, 2);
  using ours = openAnew(file.number, 2);
  const keeper = new Child(['sleep', '1000']);
  const other = keeper.pid ?? 0;
  expect(placeOf(theirs.number)).toBe(-1);
  markPlace(theirs.number, 0, other);
  markPlace(ours.number, 0);
  const device = new BorrowedFd(0, kernelReach);
  const checkApart = (): void => {
    expect(placeOf(ours.number)).toBe(0);
    expect(placeOf(theirs.number)).toBe(-1);
    expect(device.borrow(pid, ours.number)).toBe(true);
    expect(device.borrow(pid, theirs.number)).toBe(false);
  };
  checkApart();
  expect(placeOf(theirs.number, other)).toBe(0);
  expect(placeOf(ours.number, other)).toBe(-1);
  keeper.kill();
  await keeper.exited; // QEMU that has handed over its devices ends, and its run with it
  checkApart();

  // it is found anew, and the run that it came from does not take it for its own any more
  markPlace(theirs.number, 31);
  expect(placeOf(theirs.number)).toBe(31);
  expect(placeOf(theirs.number, other)).toBe(-1);
  expect(device.borrow(pid, theirs.number)).toBe(false);
  expect(new BorrowedFd(31, kernelReach).borrow(pid, theirs.number)).toBe(true);
});
