import { expect, it } from 'vitest';
import {
  F_GETFL,
  F_SETFL,
  O_APPEND,
  O_NONBLOCK,
  O_RDONLY,
  O_WRONLY,
  POLLIN,
  POLLOUT,
  pollfd,
} from '../../../src/abi/fcntl.ts';
import { V2 } from '../../../src/v2/states.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet, type Outcome } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { setState } from '../../support/v2-puppet.ts';
import { value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const SIZE = 8192;

/** A kernel driver whose data fd has no poll: fs/select.c, DEFAULT_POLLMASK of Linux 6.12. */
describeWithCompiler('the data fd of a presented v2 device, as of a kernel driver that has no poll', () => {
  const start = useShimRuns();

  async function open(spec: string): Promise<DevicePuppet> {
    const puppet = new Puppet(start([compiled('puppet')], { devices: [spec], options: ['--present', 'v2'] }));
    const { devices } = await new VfioPuppet(puppet).openDevices();
    await puppet.memory('poll', pollfd.size);
    await puppet.memory('data', 65536);
    return devices[0] as DevicePuppet;
  }

  /** What poll(2) says, which may wait for ever. */
  async function poll({ user }: DevicePuppet, fd: number, events: number): Promise<number> {
    await user.puppet.put('poll', pollfd.encode({ fd, events }));
    const outcome = await user.puppet.script(`${callText('ppoll', ['$poll', 1, 0, 0, 8])}; get poll 0 ${pollfd.size}`);
    expect(value(outcome)).toBe(1);
    return pollfd.decode(outcome.bytes).revents;
  }

  const read = ({ user }: DevicePuppet, fd: number): Promise<Outcome> => user.puppet.call('read', [fd, '$data', 65536]);

  it.each(['qat', 'vendor-v1'])('%s: is always ready, to read and to write', async (driver) => {
    const device = await open(`${driver},size=${SIZE}`);
    const ready = async (fd: number): Promise<void> => {
      expect(await poll(device, fd, POLLIN | POLLOUT)).toBe(POLLIN | POLLOUT);
      expect(await poll(device, fd, POLLIN)).toBe(POLLIN);
    };
    const saving = await setState(device, V2.PRE_COPY);
    await ready(saving);
    let outcome = await read(device, saving);
    expect(value(outcome)).toBeGreaterThan(0);
    while (outcome.errno === 'OK' && outcome.value > 0n) outcome = await read(device, saving);
    await ready(saving); // nothing to read now
    await setState(device, V2.STOP_COPY);
    await ready(saving);
    do outcome = await read(device, saving);
    while (value(outcome) > 0);
    await ready(saving); // at the end
    await setState(device, V2.STOP);
    await ready(saving); // of a session that has ended
    expect((await read(device, saving)).errno).toBe('ENODEV');
    const resuming = await setState(device, V2.RESUMING);
    await ready(resuming);
  });

  it.each(['qat', 'vendor-v1'])('%s: keeps O_NONBLOCK and does not heed it', async (driver) => {
    const device = await open(`${driver},size=${SIZE},block=50`);
    const { puppet } = device.user;
    const flags = async (fd: number): Promise<number> => value(await puppet.call('fcntl', [fd, F_GETFL, 0]));
    const saving = await setState(device, V2.STOP_COPY);
    expect(await flags(saving)).toBe(O_RDONLY);
    value(await puppet.call('fcntl', [saving, F_SETFL, O_NONBLOCK]));
    expect(await flags(saving)).toBe(O_RDONLY | O_NONBLOCK);
    expect(await flags(value(await puppet.call('dup', [saving])))).toBe(O_RDONLY | O_NONBLOCK);
    const pieces: Uint8Array[] = [];
    for (;;) {
      // the driver is not ready: the call waits, where EAGAIN would be an error to a VMM that does not expect it
      const outcome = await puppet.script(`${callText('read', [saving, '$data', 65536])}; get data 0 65536`);
      if (value(outcome) === 0) break;
      pieces.push(outcome.bytes.subarray(0, value(outcome)));
    }
    const state = Buffer.concat(pieces);
    expect(state.length).toBeGreaterThan(SIZE);
    await setState(device, V2.STOP);

    const resuming = await setState(device, V2.RESUMING);
    value(await puppet.call('fcntl', [resuming, F_SETFL, O_APPEND | O_NONBLOCK]));
    expect(await flags(resuming)).toBe(O_WRONLY | O_APPEND | O_NONBLOCK);
    await puppet.put('data', state);
    expect(value(await puppet.call('write', [resuming, '$data', state.length]))).toBe(state.length);
    value(await puppet.call('fcntl', [resuming, F_SETFL, 0]));
    expect(await flags(resuming)).toBe(O_WRONLY);
    await setState(device, V2.RUNNING);
  });

  it.each<[string, (typeof V2)['PRE_COPY' | 'STOP_COPY'], string]>([
    ['6.12', V2.PRE_COPY, 'EAGAIN'],
    ['7.1', V2.STOP_COPY, 'EAGAIN'],
  ])('mlx5 of %s heeds O_NONBLOCK while the firmware saves', async (kernel, state, errno) => {
    const device = await open(`mlx5,size=${SIZE},kernel=${kernel},delay=1000000`);
    const { puppet } = device.user;
    const saving = await setState(device, state);
    value(await puppet.call('fcntl', [saving, F_SETFL, O_NONBLOCK]));
    expect(value(await read(device, saving))).toBe(24);
    for (let n = 0; n < 3; n += 1) expect((await read(device, saving)).errno).toBe(errno);
  });
});
