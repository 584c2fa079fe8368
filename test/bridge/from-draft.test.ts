import { describe, expect, it } from 'vitest';
import { fromDraft } from '../../src/bridge/from-draft.ts';
import { createSim, parseSpec } from '../../src/sim/index.ts';
import type { DraftDevice } from '../../src/v1/drafts/device.ts';
import { outcome } from '../support/errno.ts';
import { GENERATIONS } from '../support/drafts.ts';
import { readRegister, v1User } from '../support/v1-user.ts';

/** A driver of a draft whose device_state is written down as it is written. */
function driver(text: string): { device: DraftDevice; written: number[] } {
  const sim = createSim(parseSpec(text));
  if (sim.protocol !== 'draft-2018' && sim.protocol !== 'draft-2019') throw new Error(`${text} is no draft`);
  const { device } = sim;
  const written: number[] = [];
  const spy: DraftDevice = {
    draft: device.draft,
    regionSize: device.regionSize,
    dataSection: device.dataSection,
    mapped: device.mapped,
    read: (offset, into) => device.read(offset, into),
    write: (offset, from) => {
      if (offset === 0) written.push(from[0] ?? 0);
      device.write(offset, from);
    },
    reset: () => device.reset(),
  };
  return { device: spy, written };
}

describe('fromDraft', () => {
  // what a v1 VMM writes, and what the driver gets of each: nothing that it refuses
  it.each([
    ['draft-2018', '3 2 0 1', '2 3, 4, 5, 1'],
    ['draft-2018', '2 0 1', '4, 5, 1'],
    ['draft-2018', '3 1 3', '2 3, 9 1, 2 3'],
    ['draft-2018', '3 2 1', '2 3, 4, 9 1'],
    ['draft-2018', '0 2', '4, -'],
    ['draft-2018', '0 1', '4, 9 1'],
    ['draft-2018', '0 4', '4, 5 0 6'],
    ['draft-2018', '2 0 2', '4, 5, EINVAL'],
    ['draft-2018', '2 0 4', '4, 5, 0 6'],
    ['draft-2018', '3 0 2', '2 3, 4 5, EINVAL'],
    ['draft-2018', '2 3', '4, EINVAL'],
    ['draft-2019', '3 2 0 1', '3, 2, 0, 1'],
    ['draft-2019', '0 2', '2 0, 2'],
    ['draft-2019', '0 4', '2 0, 0'],
    ['draft-2019', '4 0', '0, EINVAL'],
    ['draft-2019', '3 1', '3, 1'],
    ['draft-2019', '2 3', '2, EINVAL'],
  ])('%s: %s is %s', (text, states, expected) => {
    const { device, written } = driver(text);
    const user = v1User(fromDraft(device));
    const found = states.split(' ').map((state) => {
      written.length = 0;
      const answer = outcome(() => user.setState(Number(state)));
      if (answer !== 'OK') return answer;
      expect(user.state()).toBe(Number(state));
      return written.length === 0 ? '-' : written.join(' ');
    });
    expect(found.join(', ')).toBe(expected);
  });

  it.each(GENERATIONS)('%s: a buffer is shown until pending_bytes is read', (draft) => {
    const device = fromDraft(driver(`${draft},size=20000,section=8K,seed=3`).device);
    const user = v1User(device);
    user.setState(3);
    user.pending();
    const first = user.buffer();
    expect([user.size(), user.buffer()]).toEqual([32, first]);
    user.setState(2);
    expect(user.buffer()).toBeBytes(first);
    user.pending();
    expect(user.size()).toBeGreaterThan(32);
  });

  it.each(GENERATIONS)('%s: a device that fails is in ERROR, or says so, and a reset ends it', (draft) => {
    const device = fromDraft(driver(`${draft},fault=STOP_COPY@1:EIO!`).device);
    const user = v1User(device);
    expect(outcome(() => user.setState(2))).toBe('EIO');
    const broken = outcome(() => expect(readRegister(device, 'device_state')).toBe(6));
    expect(broken).toBe(draft === 'draft-2018' ? 'OK' : 'EFAULT');
    device.reset();
    expect(user.state()).toBe(1);
  });

  it.each(GENERATIONS)('%s: a reset behind the back of the user is seen', (draft) => {
    const { device } = driver(draft);
    const user = v1User(fromDraft(device));
    user.setState(3);
    device.reset();
    expect([user.state(), user.pending()]).toEqual([1, 0]);
  });
});
