import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { Finding, findingOf } from './finding.ts';
import { REGISTERS } from './v1-user.ts';
import { V1VmmModel, type V1Between } from './v1-vmm-model.ts';
import type { V1Step } from './v1-vmm-steps.ts';
import { V2VmmModel, type V2Between } from './v2-vmm-model.ts';
import type { V2Step } from './v2-vmm-steps.ts';

/* The models, shown devices that are broken on purpose: what they say has to lead to what is broken. */

const V1_SPEC = 'qat,size=10K,seed=3';
const fairV1 = { seed: 0, onError: 'reset', enomsg: false } as const;
const fairV2 = { seed: 0, segmentation: 'raw', offerP2P: true, mapped: true, dirty: 0 } as const;

function byOldVmm(between: V1Between, steps: readonly V1Step[] = []): Finding {
  return found(findingOf(new V1VmmModel(V1_SPEC, '', fairV1, between), steps));
}

function byNewVmm(between: V2Between, steps: readonly V2Step[] = [], conditions: Partial<typeof fairV2> = {}): Finding {
  return found(findingOf(new V2VmmModel({ ...fairV2, ...conditions }, between), steps));
}

function found(finding: Finding | undefined): Finding {
  if (finding === undefined) throw new Error('the model found nothing');
  return finding;
}

/** A v1 device that answers some accesses otherwise. */
function otherV1(device: V1Device, read: (offset: number, into: Uint8Array) => void): V1Device {
  return {
    regionSize: device.regionSize,
    dataSection: device.dataSection,
    mapped: device.mapped,
    read,
    write: (offset, from) => device.write(offset, from),
    reset: () => device.reset(),
  };
}

/** The nth question for pending_bytes is answered like the one before, and does not reach the device. */
function skipsAcknowledgement(device: V1Device, nth: number): V1Device {
  let [count, last] = [0, new Uint8Array(8)];
  return otherV1(device, (offset, into) => {
    const asks = offset === REGISTERS.pending_bytes.offset;
    count += asks ? 1 : 0;
    if (asks && count === nth) return into.set(last);
    device.read(offset, into);
    if (asks) last = into.slice();
  });
}

function otherV2(device: V2Device, change: Partial<V2Device>): V2Device {
  return {
    migrationFlags: device.migrationFlags,
    getState: () => device.getState(),
    setState: (target) => device.setState(target),
    openSession: () => device.openSession(),
    stopCopyLength: () => device.stopCopyLength(),
    reset: () => device.reset(),
    ...change,
  };
}

/** Reads of the data fd go through `change`. */
function otherBytes(device: V2Device, change: (bytes: Uint8Array) => void): V2Device {
  const other = (session: V2DataSession | undefined): V2DataSession | undefined =>
    session && {
      read(into) {
        const length = session.read(into);
        change(into.subarray(0, length));
        return length;
      },
      write: (from) => session.write(from),
      precopyInfo: () => session.precopyInfo(),
      close: () => session.close(),
    };
  return otherV2(device, {
    setState: (target) => other(device.setState(target)),
    openSession: () => other(device.openSession()),
  });
}

/** Shifts what lies behind byte `at` by one, once, in a read that is long enough. */
function shifts(at: number, by: 1 | -1): (bytes: Uint8Array) => void {
  let done = false;
  return (bytes) => {
    if (done || bytes.length <= at + 16) return;
    done = true;
    bytes.copyWithin(at + (by === 1 ? 1 : 0), at + (by === 1 ? 0 : 1));
  };
}

describe('the model of an old VMM', () => {
  test('finds nothing in a device that keeps the protocol', () => {
    expect(findingOf(new V1VmmModel(V1_SPEC, '', fairV1), [{ do: 'state', value: 3 }])).toBeUndefined();
  });

  test('names the register, the state and the sizes where an acknowledgement is skipped', () => {
    const steps: V1Step[] = [{ do: 'state', value: 2 }, { do: 'pending' }, { do: 'take' }, { do: 'pending' }];
    const { message } = byOldVmm({ above: (device) => skipsAcknowledgement(device, 2) }, steps);
    expect(message.split('\n').slice(0, 4)).toEqual([
      'pending_bytes in STOP_COPY (2): 10272, not 8224',
      'at step 4 of the steps: pending',
      'before it the VMM believed: device_state STOP_COPY (2), the driver in STOP_COPY, session: saving, ' +
        '0 bytes received and acknowledged, 2048 bytes shown and not acknowledged',
      'accesses below the device, all 2:',
    ]);
    expect(message).toMatch(/\n {2}setState STOP_COPY\n {2}read \d+: \d+/);
  });

  test('says which byte is doubled, and that it is one', () => {
    const { message } = byOldVmm({ below: (device) => otherBytes(device, shifts(768, 1)) });
    expect(message).toContain('what the VMM has of what the driver gave: received 2080 bytes, expected 2080');
    expect(message).toContain('bytes 801.. are those of 800..: one byte is doubled');
    expect(message).toMatch(/at step \d+ of the finish: pending/);
  });

  test('says the names of states', () => {
    const below = (device: V2Device): V2Device =>
      otherV2(device, { setState: (target) => device.setState(target === V2.STOP_COPY ? V2.PRE_COPY : target) });
    const { problem } = byOldVmm({ below }, [{ do: 'state', value: 2 }]);
    expect(problem).toBe('the driver after device_state STOP_COPY (2): PRE_COPY, not STOP_COPY');
    const above = (device: V1Device): V1Device =>
      otherV1(device, (offset, into) => {
        device.read(offset, into);
        if (offset === 0 && into[0] === 3) into[0] = 5;
      });
    expect(byOldVmm({ above }, [{ do: 'state', value: 3 }]).problem).toBe(
      'device_state: 5, which is no state, not PRE_COPY (3)',
    );
  });

  test('has the last 20 accesses of many', () => {
    const take: V1Step[] = Array.from({ length: 30 }, () => ({ do: 'state', value: 3 }) as const);
    const lost: V1Step[] = take.flatMap((step) => [step, { do: 'state', value: 1 } as const]);
    let states = 0;
    const above = (device: V1Device): V1Device =>
      otherV1(device, (offset, into) => {
        device.read(offset, into);
        states += offset === 0 ? 1 : 0;
        if (states === 40) into[0] = 0;
      });
    const { message, circumstances } = byOldVmm({ above }, lost);
    expect(circumstances?.accesses.length).toBeGreaterThan(20);
    expect(message).toContain(`accesses below the device, the last 20 of ${circumstances?.accesses.length}:`);
    expect(message.split('\n').filter((line) => line.startsWith('  '))).toHaveLength(20);
  });

  test('tells of an exception that is none of the protocol, and keeps it', () => {
    const bug = new TypeError('a bug elsewhere');
    const above = (device: V1Device): V1Device =>
      otherV1(device, () => {
        throw bug;
      });
    const finding = byOldVmm({ above }, [{ do: 'look' }]);
    expect(finding.problem).toBe('the VMM was thrown TypeError: a bug elsewhere');
    expect(finding.cause).toBe(bug);
    expect(finding.circumstances?.step).toBe('step 1 of the steps: look');
  });
});

describe('the model of a new VMM', () => {
  const save: V2Step[] = [
    { do: 'state', target: V2.STOP_COPY },
    { do: 'read', bytes: 9000 },
    { do: 'read', bytes: 9000 },
    { do: 'read', bytes: 9000 },
  ];

  test('finds nothing in a device that keeps the protocol', () => {
    expect(findingOf(new V2VmmModel(fairV2), save)).toBeUndefined();
  });

  test('shows by the accesses that an acknowledgement is skipped', () => {
    const { message } = byNewVmm({ below: (device) => skipsAcknowledgement(device, 3) }, save);
    const lines = message.split('\n');
    expect(lines.slice(0, 4)).toEqual([
      '8256 bytes were received and not acknowledged, more than a buffer of 8192',
      'at step 4 of the steps: read bytes 9000',
      'before it the VMM believed: STOP_COPY, session: saving, 4160 bytes received, 32 acknowledged to the driver',
      'accesses below the device, all 15:',
    ]);
    // the buffer is shown a second time, and pending_bytes was not asked for in between
    expect(lines.slice(-6)).toEqual([
      '  read pending_bytes 24160',
      `  read data_offset ${DATA_OFFSET}`,
      '  read data_size 4128',
      '  read device_state STOP_COPY (2)',
      `  read data_offset ${DATA_OFFSET}`,
      '  read data_size 4128',
    ]);
  });

  test('says which byte is missing', () => {
    const { message } = byNewVmm({ above: (device) => otherBytes(device, shifts(100, -1)) }, save);
    expect(message).toMatch(/^what was received of what was acknowledged: received/);
    expect(message).toContain('bytes 132.. are those of 133..: a byte is missing');
  });

  test('says the names of states, and what the driver was asked for', () => {
    const above = (device: V2Device): V2Device =>
      otherV2(device, { getState: () => (device.getState() === V2.STOP_COPY ? V2.PRE_COPY : device.getState()) });
    const { message } = byNewVmm({ above }, save);
    expect(message.split('\n').slice(0, 3)).toEqual([
      'the state: PRE_COPY, not STOP_COPY',
      'at step 1 of the steps: state STOP_COPY',
      'before it the VMM believed: RUNNING, no session',
    ]);
    expect(message).toContain('  write device_state STOP_COPY (2)');
  });

  test('says between which states the device ran that has to be stopped', () => {
    const above = (device: V2Device): V2Device =>
      otherV2(device, {
        setState(target: V2State) {
          if (target === V2.STOP_COPY) device.setState(V2.PRE_COPY);
          return device.setState(target);
        },
      });
    const steps: V2Step[] = [{ do: 'state', target: V2.STOP }, ...save];
    expect(byNewVmm({ above }, steps).problem).toBe(
      'the device ran between STOP and STOP_COPY: from STOP (0) to RUNNING (1)',
    );
  });
});
