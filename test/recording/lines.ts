import fc from 'fast-check';
import { errnoNumber, type ErrnoName } from '../../src/abi/errno.ts';
import type { DeviceEvent } from '../../src/device/device-event.ts';
import type { RecordingLine } from '../../src/recording/format.ts';
import { deviceCall } from '../../src/recording/line.ts';
import { recordingHeader } from '../support/recording-header.ts';

/** Lines of recordings, of any content. */

const count = fc.maxSafeNat();
const errno = fc.constantFrom<ErrnoName>('EAGAIN', 'EINVAL', 'EIO', 'ENOMSG').filter((name) => errnoNumber(name) > 0);
const text = fc.string({ unit: 'grapheme', maxLength: 40 });
const direction = fc.constantFrom('out' as const, 'in' as const);
const state = fc.constantFrom('RUNNING', 'STOP_COPY', '(9)');
const access = fc.constantFrom('read' as const, 'write' as const);
const register = fc.constantFrom('device_state' as const, 'pending_bytes' as const, 'data_size' as const);

export const events: fc.Arbitrary<DeviceEvent> = fc.oneof(
  fc.record({
    time: count,
    protocol: fc.constant('v1' as const),
    call: fc.constant('register' as const),
    access: fc.constant('read' as const),
    register,
    value: count,
  }),
  fc.record({
    time: count,
    protocol: fc.constant('v1' as const),
    call: fc.constant('register' as const),
    access: fc.constant('write' as const),
    register,
    value: count,
    errno,
  }),
  fc.record({
    time: count,
    protocol: fc.constant('draft-2018' as const),
    call: fc.constant('register' as const),
    access: fc.constant('read' as const),
    register: fc.constant('pending_precopy_only' as const),
    errno,
  }),
  fc.record({
    time: count,
    protocol: fc.constant('draft-2019' as const),
    call: fc.constant('other' as const),
    access,
    offset: count,
    bytes: count,
  }),
  fc.record({
    time: count,
    protocol: fc.constant('v1' as const),
    call: fc.constant('data' as const),
    direction,
    offset: count,
    bytes: count,
  }),
  fc.record({ time: count, protocol: fc.constant('v2' as const), call: fc.constant('get-state' as const), state }),
  fc.record({ time: count, protocol: fc.constant('v2' as const), call: fc.constant('get-state' as const), errno }),
  fc.record({
    time: count,
    protocol: fc.constant('v2' as const),
    call: fc.constant('set-state' as const),
    state,
    session: fc.boolean(),
  }),
  fc.record({
    time: count,
    protocol: fc.constant('v2' as const),
    call: fc.constant('data-size' as const),
    bytes: count,
  }),
  fc.record({
    time: count,
    protocol: fc.constant('v2' as const),
    call: fc.constant('precopy-info' as const),
    initialBytes: count,
    dirtyBytes: count,
    reinit: fc.boolean(),
  }),
  fc.record({
    time: count,
    protocol: fc.constant('v2' as const),
    call: fc.constant('precopy-info-v2' as const),
    wanted: fc.boolean(),
  }),
  fc.record({
    time: count,
    protocol: fc.constant('v2' as const),
    call: fc.constant('data' as const),
    direction,
    errno,
  }),
  fc.record({ time: count, protocol: fc.constant('v2' as const), call: fc.constant('reset' as const) }),
);

const calls = events.map(deviceCall);
const driverCalls = fc.array(
  fc
    .tuple(calls, count, fc.option(fc.record({ device: text, times: count }), { nil: {} }))
    .map(([call, time, more]) => ({
      ...call,
      time,
      ...more,
    })),
  { maxLength: 5 },
);
const sha256 = fc.stringMatching(/^[0-9a-f]{64}$/);
const vfio = fc.record(
  {
    protocol: fc.constant('vfio' as const),
    call: fc.constant('ioctl'),
    request: fc.constantFrom('VFIO_DEVICE_FEATURE', '0x3b70'),
    feature: text,
    offset: count,
    bytes: count,
  },
  { requiredKeys: ['protocol', 'call'] },
);

const accesses = fc
  .tuple(
    fc.record(
      {
        kind: fc.constant('access' as const),
        begin: count,
        us: count,
        pid: fc.option(count),
        tid: count,
        device: text,
        node: text,
        call: fc.oneof(calls, vfio),
        retries: count,
        again: fc.constant(true as const),
        moved: fc.record({ direction, bytes: count }),
        data: fc.record({ bytes: count, sha256, at: count }, { requiredKeys: ['bytes', 'sha256'] }),
        driver: driverCalls,
        driverOmitted: count,
      },
      { requiredKeys: ['kind', 'begin', 'us', 'pid', 'tid', 'call'] },
    ),
    fc.oneof(
      fc.record({ result: fc.oneof(count, fc.constantFrom('fd' as const, 'address' as const)) }),
      fc.record({ errno }),
    ),
  )
  .map(([line, answer]) => ({ ...line, ...answer }));

/** Lines between a header and an end. */
export const lines: fc.Arbitrary<RecordingLine> = fc.oneof(
  accesses,
  fc.record({ kind: fc.constant('driver' as const), time: count, device: text, call: calls }),
  fc.record({
    kind: fc.constant('opened' as const),
    time: count,
    device: text,
    protocol: fc.constantFrom('v1' as const, 'v2' as const, 'draft-2018' as const),
    pid: fc.option(count),
    tid: count,
  }),
  fc.record({ kind: fc.constant('closed' as const), time: count, device: text }),
  fc.record({ kind: fc.constant('takeover' as const), time: count, why: text }),
);

export const recordings: fc.Arbitrary<RecordingLine[]> = fc
  .tuple(
    fc.array(lines, { maxLength: 12 }),
    fc.constantFrom('ended' as const, 'limit' as const, 'lost' as const),
    count,
  )
  .map(([between, why, time]) => [recordingHeader(), ...between, { kind: 'end', time, why }]);
