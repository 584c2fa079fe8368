import { describe, expect, test } from 'vitest';
import { V2, type V2StateName } from '../../src/v2/states.ts';
import { DataFds } from '../../src/interpose/serve/data-fd.ts';
import { arch } from '../../src/sys/libc.ts';
import { noise } from '../support/bytes.ts';
import { failure, outcome } from '../support/errno.ts';
import { newVmm, readSome, type NewVmm } from '../support/presented.ts';
import { GuardedMemory, selfCall } from '../support/self-call.ts';
import { TapeV1 } from '../support/tape-v1.ts';

/* Each access of a kernel driver is a system call, and of a vfio-user server a round trip: one call of the VMM asks once. */

function at(name: V2StateName, options = {}): NewVmm {
  const vmm = newVmm(new TapeV1({ preCopy: [noise(3000)], stopCopy: [noise(5000, 2), noise(10, 3)] }), options);
  if (name !== 'RUNNING') vmm.device.setState(V2[name]);
  vmm.spy.log.length = 0;
  return vmm;
}

/** How often device_state was read and written. */
function asked({ spy }: NewVmm): { reads: number; writes: number } {
  const count = (prefix: string): number => spy.log.filter((line) => line.startsWith(prefix)).length;
  return { reads: count('read device_state'), writes: count('write device_state') };
}

describe('presentV2 reads device_state once', () => {
  test('for GET', () => {
    const vmm = at('RUNNING');
    vmm.device.getState();
    expect(asked(vmm)).toEqual({ reads: 1, writes: 0 });
  });

  test.each<[V2StateName, V2StateName, number]>([
    ['RUNNING', 'RUNNING', 0],
    ['RUNNING', 'PRE_COPY', 1],
    ['PRE_COPY', 'STOP_COPY', 1],
    ['RUNNING', 'STOP_COPY', 2],
    ['STOP_COPY', 'RUNNING', 1],
    ['PRE_COPY', 'STOP', 2],
    ['RESUMING', 'STOP', 0],
    ['RESUMING', 'PRE_COPY', 2],
  ])('for SET, %s to %s, with %i writes', (from, to, writes) => {
    const vmm = at(from);
    vmm.device.setState(V2[to]);
    expect(asked(vmm)).toEqual({ reads: 1, writes });
  });

  test('for a SET that is refused before anything is done', () => {
    const vmm = at('RESUMING');
    expect(outcome(() => vmm.device.setState(V2.STOP_COPY))).toBe('EINVAL');
    expect(asked(vmm)).toEqual({ reads: 1, writes: 0 });
  });

  test('and once more where a write fails that may teach', () => {
    const vmm = at('STOP');
    vmm.tape.refusals.set('0 2', { error: failure('EINVAL') });
    expect(outcome(() => vmm.device.setState(V2.STOP_COPY))).toBe('EINVAL');
    expect(asked(vmm)).toEqual({ reads: 2, writes: 1 });
  });

  test.each(['raw', 'framed'] as const)('for each read, write, precopy info and MIG_DATA_SIZE, %s', (segmentation) => {
    const vmm = at('PRE_COPY', { segmentation });
    const session = vmm.device.openSession();
    for (const access of [
      () => readSome(session, 100),
      () => session?.precopyInfo(),
      () => vmm.device.stopCopyLength(),
    ]) {
      vmm.spy.log.length = 0;
      access();
      expect(asked(vmm).reads).toBe(1);
    }
    const resuming = at('RESUMING', { segmentation: 'raw' });
    resuming.device.openSession()?.write(noise(100));
    expect(asked(resuming).reads).toBe(1);
  });
});

describe('a data fd of presentV2', () => {
  const { read, write } = arch.syscalls;
  const memory = new GuardedMemory();

  function served(vmm: NewVmm): DataFds {
    const device = { v2: vmm.device, givesAgain: false, moved: () => {}, undo: () => {} };
    return new DataFds(device, { first: 200, last: 210 }, new Uint8Array(64));
  }

  test.each([true, false])('reads device_state once for each read, reading ahead included; mapped: %s', (mapped) => {
    const vmm = at('STOP_COPY');
    vmm.spy.options = { mapped };
    const dataFds = served(vmm);
    let total = 0;
    for (let length = -1; length !== 0; total += length) {
      vmm.spy.log.length = 0;
      length = dataFds.read(selfCall(read, [200, memory.address, 4096]));
      if (dataFds.readsAhead) dataFds.readAhead();
      expect(asked(vmm)).toEqual({ reads: 1, writes: 0 });
    }
    expect(total).toBe(8010);
  });

  test.each([true, false])('and once for each write; mapped: %s', (mapped) => {
    const vmm = at('RESUMING');
    vmm.spy.options = { mapped };
    const dataFds = served(vmm);
    memory.put(noise(4096));
    for (let n = 0; n < 20; n += 1) {
      vmm.spy.log.length = 0;
      expect(dataFds.write(selfCall(write, [200, memory.address + memory.bytes.length - 4096, 4096]))).toBe(4096);
      expect(asked(vmm)).toEqual({ reads: 1, writes: 0 });
    }
  });
});
