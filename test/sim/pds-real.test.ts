import { describe, expect, test } from 'vitest';
import { V2 } from '../../src/v2/states.ts';
import { join } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { begun, drained, inSession, stateOf, v2Sim } from '../support/sims.ts';

/* drivers/vfio/pci/pds/lm.c, vfio_dev.c and pci_drv.c, Linux 7.1. */

const BUFFER = 65_536;
const SETUP = 32;
const EVERY_STATE = [V2.STOP, V2.RUNNING, V2.STOP_COPY, V2.RESUMING, V2.RUNNING_P2P] as const;

describe('sim pds,real=1', () => {
  test('gives what firmware has, less than MIG_DATA_SIZE', () => {
    const { device, session } = inSession('pds,real=1,size=1000,seed=3', V2.STOP_COPY);
    expect(drained(session)).toHaveLength(SETUP + 1000);
    expect(device.stopCopyLength()).toBe(BUFFER);
    expect(outcome(() => session.precopyInfo())).toBe('ENOTTY');
  });

  test('gives the memory as it was on entry into STOP_COPY', () => {
    const { bar, session } = inSession('pds,real=1,size=1000,seed=3', V2.STOP_COPY);
    bar.fill(0);
    expect(drained(session).subarray(SETUP)).toBeBytes(v2Sim('pds,size=1000,seed=3').bar);
  });

  test('takes anything while it is written, and judges it at the exit', () => {
    for (const [source, answer] of [
      ['pds,real=1,size=1000,seed=3', 'OK'],
      ['pds,real=1,size=1000,seed=3,compat=2', 'EINVAL'],
      ['pds,real=1,size=1000,seed=3,version=2', 'EINVAL'],
      ['pds,real=1,size=999', 'EINVAL'],
    ] as const) {
      const { device, session } = inSession('pds,real=1,size=1000', V2.RESUMING);
      const state = stateOf(source);
      expect(session.write(state)).toBe(state.length);
      expect(
        outcome(() => device.setState(V2.RUNNING)),
        source,
      ).toBe(answer);
      expect(device.getState()).toBe(answer === 'OK' ? V2.RUNNING : V2.RESUMING);
    }
  });

  test('takes a write that ends beyond the buffer in part, and then none', () => {
    const { device, bar, session } = inSession('pds,real=1,size=1000', V2.RESUMING);
    const state = stateOf('pds,real=1,size=1000,seed=3');
    const long = join([state, new Uint8Array(BUFFER)]);
    expect(session.write(long)).toBe(BUFFER);
    expect(outcome(() => session.write(new Uint8Array(1)))).toBe('EINVAL');
    expect(outcome(() => session.write(new Uint8Array(0)))).toBe('OK');
    device.setState(V2.RUNNING);
    expect(bar).toBeBytes(v2Sim('pds,size=1000,seed=3').bar);
  });

  test('finds zeros in the buffer of each session', () => {
    const { device, session } = inSession('pds,real=1,size=1000', V2.RESUMING);
    session.write(stateOf('pds,real=1,size=1000,seed=3'));
    device.setState(V2.RUNNING);
    begun(device, V2.RESUMING);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EINVAL');
  });

  test.each(['reading', 'writing'])(
    'is in ERROR once firmware has recovered while %s, and a reset leads out',
    (doing) => {
      const spec = 'pds,real=1,size=1000,recovery=2';
      const begin = doing === 'reading' ? V2.STOP_COPY : V2.RESUMING;
      const { device, session } = inSession(spec, begin);
      const move = (): number =>
        doing === 'reading' ? session.read(new Uint8Array(100)) : session.write(new Uint8Array(100));
      expect(move()).toBe(100);
      expect(outcome(move)).toBe('ENODEV');
      expect([device.getState(), device.openSession()]).toEqual([V2.ERROR, undefined]);
      for (const state of EVERY_STATE) expect(outcome(() => device.setState(state))).toBe('EIO');
      expect(outcome(move)).toBe('ENODEV');
      device.reset();
      expect(device.getState()).toBe(V2.RUNNING);
      expect(drained(begun(device, V2.STOP_COPY))).toHaveLength(SETUP + 1000); // it happens once
    },
  );
});
