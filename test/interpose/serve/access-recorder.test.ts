import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VFIO_DEVICE_GET_INFO } from '../../../src/abi/vfio.ts';
import type { DeviceEvent } from '../../../src/device/device-event.ts';
import { RECORDING_RING_SIZE, RecordingRing } from '../../../src/interpose/memory/recording-ring.ts';
import { AccessRecorder } from '../../../src/interpose/serve/access-recorder.ts';
import { deviceCall } from '../../../src/recording/line.ts';
import { arch } from '../../../src/sys/libc.ts';
import { events } from '../../recording/lines.ts';
import { selfCall } from '../../support/self-call.ts';

const { pread64, pwrite64, read, ioctl } = arch.syscalls;
const answers = { isValid: () => true };

interface Access {
  readonly device: string;
  readonly nr: number;
  readonly call: DeviceEvent;
  readonly driver: readonly { readonly device: string; readonly event: DeviceEvent }[];
  readonly moved: number | undefined;
  readonly value: number;
  readonly isTried: boolean;
}

const device = fc.constantFrom('0000:90:00.0', '0000:90:01.0');
const accesses: fc.Arbitrary<Access> = fc.record({
  device,
  nr: fc.constantFrom(pread64, pread64, pwrite64, read),
  call: events,
  driver: fc.array(fc.record({ device, event: events }), { maxLength: 2 }),
  moved: fc.option(fc.maxSafeNat(), { nil: undefined, freq: 4 }),
  value: fc.constantFrom(4, 8, 1_000_000),
  isTried: fc.nat(9).map((n) => n === 0),
});

/** Some accesses, many times, with other numbers each time. */
const rounds = fc
  .tuple(
    fc.array(accesses, { minLength: 1, maxLength: 40 }),
    fc.array(fc.tuple(fc.nat(), fc.maxSafeNat()), { maxLength: 200 }),
  )
  .map(([some, steps]) => steps.map(([n, number]) => renumbered(some[n % some.length] as Access, number)));

function renumbered(access: Access, number: number): Access {
  const { call, driver } = access;
  const others = driver.map(({ device: of, event }) => ({ device: of, event: withNumber(event, number) }));
  return { ...access, call: withNumber(call, number), driver: others };
}

function withNumber(event: DeviceEvent, number: number): DeviceEvent {
  const values = Object.entries(event).map(([name, value]) => [name, typeof value === 'number' ? number : value]);
  return Object.fromEntries(values) as DeviceEvent;
}

/** The line of an access, but for what the clock says. */
function expected({ device: on, call, driver, moved, value, isTried }: Access): object {
  const [first, second] = driver.map(({ device: of, event }) => ({
    time: event.time,
    ...deviceCall(event),
    ...(of !== on && { device: of }),
  }));
  const isSame = JSON.stringify({ ...first, time: 0 }) === JSON.stringify({ ...second, time: 0 });
  const calls = isSame && first !== undefined ? [{ ...first, times: 2 }] : [first, second].filter((each) => each);
  return {
    kind: 'access',
    begin: expect.any(Number) as number,
    us: expect.any(Number) as number,
    pid: process.pid,
    tid: process.pid,
    device: on,
    call: deviceCall(call),
    result: value,
    ...(moved !== undefined && { moved: { direction: 'out', bytes: moved } }),
    ...(isTried && { retries: 1 }),
    ...(driver.length > 0 && { driver: calls }),
  };
}

/** What a recorder writes of accesses, one after the other. */
function recorded(list: readonly Access[]): object[] {
  const memory = new Uint8Array(RECORDING_RING_SIZE);
  const recorder = new AccessRecorder({ ring: new RecordingRing(memory), wake: -1, data: undefined });
  for (const access of list) {
    const call = selfCall(access.nr, [3, VFIO_DEVICE_GET_INFO, 4, 0]);
    call.begin(answers);
    recorder.begin(call);
    if (access.isTried) {
      recorder.parked(call);
      recorder.begin(call);
    }
    recorder.on(access.device);
    for (const { device: of, event } of access.driver) recorder.driver(of, event);
    recorder.seen(access.call);
    if (access.moved !== undefined) recorder.moved('out', access.moved);
    recorder.end(call, access.value, 0);
  }
  const reader = new RecordingRing(memory);
  let text = '';
  while (!reader.isEmpty) text += Buffer.from(reader.take()).toString();
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as object);
}

describe('AccessRecorder', () => {
  it('writes the line of each access, whatever lines before were like it', () => {
    fc.assert(
      fc.property(rounds, (list) => {
        expect(recorded(list)).toEqual(list.map(expected));
      }),
      { numRuns: 60 },
    );
  });

  it('takes no line for one that differs in more than numbers', () => {
    const on = '0000:90:00.0';
    const registerOf = (value: number): DeviceEvent => ({
      time: 5,
      protocol: 'v1',
      call: 'register',
      access: 'read',
      register: 'device_state',
      value,
    });
    const event: DeviceEvent = { time: 7, protocol: 'v2', call: 'get-state', state: 'RUNNING' };
    const driver = [{ device: on, event }];
    const plain: Access = {
      device: on,
      nr: pread64,
      call: registerOf(1),
      driver,
      moved: undefined,
      value: 4,
      isTried: false,
    };
    const others: readonly Access[] = [
      { ...plain, call: registerOf(3) },
      { ...plain, device: '0000:90:01.0' },
      { ...plain, driver: [] },
      { ...plain, driver: [{ device: '0000:90:01.0', event }] },
      { ...plain, driver: [{ device: on, event: { ...event, state: 'STOP' } }] },
      { ...plain, driver: [...driver, ...driver] },
      { ...plain, driver: [...driver, { device: on, event: { ...event, state: 'STOP' } }] },
      { ...plain, moved: 5 },
      { ...plain, isTried: true },
    ];
    const list = others.flatMap((other) => [plain, other, plain, other]);
    expect(recorded(list)).toEqual(list.map(expected));
  });

  it('says of the first look at a device what it is, whatever a bridge has done for it', () => {
    const register: DeviceEvent = {
      time: 5,
      protocol: 'v1',
      call: 'register',
      access: 'write',
      register: 'device_state',
      value: 1,
    };
    const access: Access = {
      device: 'a',
      nr: pwrite64,
      call: register,
      driver: [],
      moved: undefined,
      value: 0,
      isTried: false,
    };
    const [written, look] = recorded([access, { ...access, nr: ioctl }]);
    expect(written).toEqual(expected(access));
    expect(look).toMatchObject({
      call: { protocol: 'vfio', call: 'ioctl', request: 'VFIO_DEVICE_GET_INFO' },
      result: 0,
    });
  });
});
