import { expect, it } from 'vitest';
import { verified } from '../../src/demo/result.ts';

const intact: Parameters<typeof verified>[0] = {
  vmm: 'a VMM',
  vmmProtocol: 'v1',
  device: 'qat',
  deviceProtocol: 'v2',
  guestMemoryBytes: 2 ** 20,
  writtenSha256: 'aa',
  readSha256: 'aa',
  transferSeconds: 0.5,
  downtimeSeconds: 0.25,
  source: { states: ['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP'], bytes: 2 ** 20, buffers: 1, sha256: 'bb' },
  destination: { states: ['RUNNING', 'RESUMING', 'STOP', 'RUNNING'], bytes: 2 ** 20, buffers: 2, sha256: 'bb' },
};

it('accepts a migration that arrived, and says how fast it was', () => {
  expect(verified(intact)).toEqual({ ...intact, mibPerSecond: 2 });
});

const { source, destination } = intact;

it.each([
  ['memory', { destination: { ...destination, sha256: 'cc' } }, /guest-visible memory differs: sha256 bb .*, cc /],
  ['guest data', { readSha256: 'cc' }, /what the guest wrote differs: sha256 aa .*, cc /],
  ['bytes', { destination: { ...destination, bytes: 7 } }, /^1048576 bytes left the source, 7 arrived$/],
  ['pre-copy', { source: { ...source, states: ['RUNNING', 'STOP_COPY', 'STOP'] } }, /^source: .*, without PRE_COPY$/],
  ['order', { source: { ...source, states: ['STOP_COPY', 'PRE_COPY', 'STOP'] } }, /^source: .*, without STOP_COPY$/],
  [
    'running',
    { destination: { ...destination, states: ['RUNNING', 'RESUMING'] } },
    /^destination: .*, without RUNNING$/,
  ],
])('refuses a migration with wrong %s', (_what, change, message) => {
  expect(() => verified({ ...intact, ...change })).toThrow(message);
});
