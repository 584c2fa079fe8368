import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { VFIO_MIG_GET_PRECOPY_INFO } from '../../../src/abi/vfio.ts';
import { vfio_precopy_info } from '../../../src/abi/vfio-v2.ts';
import type { SyscallName } from '../../../src/abi/syscalls.ts';
import { V1 } from '../../../src/v1/states.ts';
import { V2 } from '../../../src/v2/states.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { sha256 } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet, type Argument, type Outcome } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { getState, setState } from '../../support/v2-puppet.ts';
import { nr, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const SIZE = 64 * 1024;
/** Its data is never ready. */
const NEVER = `size=${SIZE},block=4000000000`;

interface Parked {
  readonly done: Promise<Outcome>;
  settled?: Outcome;
}

describeWithCompiler('a slow device of a VM', () => {
  const start = useShimRuns();

  async function open(
    devices: readonly string[],
    json = false,
  ): Promise<{ puppet: Puppet; slow: DevicePuppet; other: DevicePuppet }> {
    const puppet = new Puppet(start([compiled('puppet')], { devices, json, options: ['--data-size', '64K'] }));
    const opened = await new VfioPuppet(puppet).openDevices(2);
    const [slow, other] = opened.devices as [DevicePuppet, DevicePuppet];
    for (const name of ['here', 'there']) await puppet.memory(name, 2 * SIZE);
    return { puppet, slow, other };
  }

  /** A call of a thread of its own that waits, which is awaited; `settled` is its outcome as soon as it has one. */
  async function park(puppet: Puppet, name: SyscallName, args: readonly Argument[]): Promise<Parked> {
    const call: Parked = { done: puppet.call(name, args, 1) };
    void call.done.then((outcome) => (call.settled = outcome));
    const { pid } = puppet.run;
    const waits = (tid: string): boolean =>
      readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'utf8').startsWith(`${nr(name)} 0x${args[0]?.toString(16)} `);
    await poll(() => (readdirSync(`/proc/${pid}/task`).some(waits) ? true : undefined), 10_000, `a ${name} that waits`);
    return call;
  }

  async function readAll({ user: { puppet } }: DevicePuppet, fd: number): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    for (;;) {
      const outcome = await puppet.script(`${callText('read', [fd, '$here', SIZE])}; get here 0 ${SIZE}`);
      if (value(outcome) === 0) return Buffer.concat(pieces);
      pieces.push(outcome.bytes.subarray(0, value(outcome)));
    }
  }

  it.each(['qat', 'vendor-v1'])('keeps nobody else from a whole migration in v2: %s', async (driver) => {
    const { puppet, slow, other } = await open([`${driver},${NEVER}`, `${driver},size=${SIZE},seed=7`]);
    const fd = await setState(slow, V2.STOP_COPY);
    const reading = await park(puppet, 'read', [fd, '$there', SIZE]);

    // another device, on another thread, out and in again; and the slow one's state
    const state = await readAll(other, await setState(other, V2.STOP_COPY));
    expect(state.length).toBeGreaterThan(SIZE);
    await setState(other, V2.RUNNING);
    const resuming = await setState(other, V2.RESUMING);
    await puppet.put('here', state);
    expect(value(await puppet.call('write', [resuming, '$here', state.length]))).toBe(state.length);
    await setState(other, V2.RUNNING);
    expect(await getState(slow)).toBe(V2.STOP_COPY);
    expect(reading.settled).toBeUndefined();

    // where the session ends, so does the call that waited for its data
    await setState(slow, V2.RUNNING);
    expect((await reading.done).errno).toBe('ENODEV');
  });

  it('keeps nobody else from a whole migration while the firmware of mlx5 saves, read or asked', async () => {
    const { puppet, slow, other } = await open([`mlx5,size=${SIZE},delay=1000000`, `mlx5,size=${SIZE},seed=7`]);
    const fd = await setState(slow, V2.PRE_COPY);
    expect(value(await puppet.call('read', [fd, '$there', SIZE]))).toBe(24);
    await puppet.put('there', vfio_precopy_info.encode({ argsz: vfio_precopy_info.size }));
    const asking = await park(puppet, 'ioctl', [fd, VFIO_MIG_GET_PRECOPY_INFO, '$there']);
    const state = await readAll(other, await setState(other, V2.STOP_COPY));
    expect(state.length).toBeGreaterThan(SIZE);
    await setState(other, V2.RUNNING);
    expect(asking.settled).toBeUndefined();
    // a driver that waits for its firmware with its lock is reset when it gives that back: never here, as the firmware never ends
    expect(await getState(slow)).toBe(V2.PRE_COPY);
    expect(await getState(other)).toBe(V2.RUNNING);
  });

  it('keeps nobody else from a whole migration in v1', async () => {
    const { puppet, slow, other } = await open([`qat,${NEVER}`, `qat,size=${SIZE},seed=7`]);
    await slow.enter(V1.STOP_COPY);
    const asking = await park(puppet, 'pread64', [slow.fd, '$there', 8, slow.region + 16n]);
    await other.enter(V1.PRE_COPY);
    await other.enter(V1.STOP_COPY);
    const buffers = await other.save();
    await other.enter(V1.STOP);
    await other.enter(V1.RESUMING);
    await other.load(buffers);
    await other.enter(V1.RUNNING);
    expect(await slow.state()).toBe(V1.STOP_COPY);
    expect(asking.settled).toBeUndefined();
    await slow.enter(V1.RUNNING);
    expect(await asking.done).toMatchObject({ errno: 'OK', value: 8n });
  });

  it('has its calls served in the end, each with its own bytes', async () => {
    const { puppet, slow, other } = await open(
      [`qat,size=${SIZE},seed=3,block=40`, `qat,size=${SIZE},seed=4,block=40`],
      true,
    );
    const fds = [await setState(slow, V2.STOP_COPY), await setState(other, V2.STOP_COPY)];
    /** Both wait at once, each thread for its own device. */
    const pieces: Buffer[][] = [[], []];
    await Promise.all(
      fds.map(async (fd, n) => {
        const name = n === 0 ? 'here' : 'there';
        for (;;) {
          const script = `${callText('read', [fd, `$${name}`, 10_000])}; get ${name} 0 10000`;
          const outcome = await puppet.script(script, n + 1);
          if (value(outcome) === 0) return;
          pieces[n]?.push(Buffer.from(outcome.bytes.subarray(0, value(outcome))));
        }
      }),
    );
    puppet.run.end();
    await puppet.run.ended();
    const hashes = pieces.map((each) => sha256(Buffer.concat(each).subarray(32)));
    expect(puppet.run.reports().map((report) => report.sha256)).toEqual(hashes);
  });
});
