import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  SECCOMP_IOCTL_NOTIF_ADDFD,
  SECCOMP_IOCTL_NOTIF_RECV,
  SECCOMP_IOCTL_NOTIF_SEND,
} from '../../../src/abi/seccomp.ts';
import { VFIO_DEVICE_RESET } from '../../../src/abi/vfio.ts';
import { storeOf } from '../../../src/sim/byte-store.ts';
import { fillPattern } from '../../../src/sim/memory.ts';
import { barSize } from '../../../src/sim/pci.ts';
import type { SimSpec } from '../../../src/sim/drivers.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import { V1 } from '../../../src/v1/states.ts';
import { ambush } from '../../support/ambush.ts';
import { noise, sha256 } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { because, lacksTracing } from '../../support/host.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { useShimRuns, type ShimRun } from '../../support/shim-run.ts';
import { BAR0_AT, SECTION, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { FULL, inShort } from '../../support/runs.ts';
import { patient } from '../../support/patience.ts';

const TAKES_OVER = /the supervisor ended \(SIGKILL\), a successor takes over/g;

/** What migrant.c prints. */
interface Migrated {
  readonly bytes: number;
  readonly calls: number;
  readonly kills: number;
  readonly mapped: number;
}

/** The memory of a device whose guest has written what migrant.c writes in its three rounds. */
function afterGuest(spec: SimSpec): Uint8Array {
  const memory = new Uint8Array(barSize(spec));
  fillPattern(storeOf(memory.subarray(0, spec.size)), spec.seed);
  for (const round of [0, 1, 2]) memory.fill(round + 1, 64 * round, 64 * round + 64);
  return memory.subarray(0, spec.size);
}

/** Hundreds of processes, one after the other, on a machine that may be busy. */
const BUSY = patient(180_000);

describeWithCompiler('a supervisor that is killed', () => {
  const start = useShimRuns();
  let directory = '';
  let files = 0;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'shim-takeover-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  /** Runs the migrating VMM to its end. */
  async function migrant(device: string, args: readonly string[]): Promise<{ run: ShimRun; done: Migrated }> {
    const options = { devices: [device], json: true, options: ['--data-size', '16K'] };
    const run = start([compiled('migrant'), ...args], options);
    const exit = await run.ended(60_000);
    expect(exit, run.describe()).toEqual({ code: 0, signal: null });
    return { run, done: JSON.parse(run.stdout.split('\n')[0] ?? '') as Migrated };
  }

  /** Saves and loads, each under its own kills, and compares the devices. Returns how many supervisors were killed. */
  async function migrate(from: string, to: string, save: string, load: string): Promise<number> {
    const file = join(directory, String((files += 1)));
    const source = await migrant(from, ['save', file, ...save.split(' ')]);
    const destination = await migrant(to, ['load', file, ...load.split(' ')]);
    const [sent] = source.run.reports();
    const [arrived] = destination.run.reports();
    expect(sent?.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(arrived?.sha256).toBe(sent?.sha256);
    expect(arrived?.bytesIn).toBe(sent?.bytesOut);
    expect(source.done.bytes).toBe(sent?.bytesOut);
    expect(sent?.sha256).toBe(sha256(afterGuest(parseSpec(from))));
    const preCopy = from.startsWith('pds') ? [] : ['PRE_COPY'];
    expect(sent?.states).toEqual(['RUNNING', ...preCopy, 'STOP_COPY', 'STOP']);
    expect(arrived?.states).toEqual(['RUNNING', 'RESUMING', 'RUNNING']);
    for (const { run, done } of [source, destination]) {
      expect(done.kills).toBeGreaterThan(0);
      // one more may have been killed after the migration
      expect([done.kills, done.kills + 1]).toContain(run.stderr.match(TAKES_OVER)?.length);
    }
    return source.done.kills + destination.done.kills;
  }

  const migrations: [from: string, to: string, save: string, load: string][] = [
    ['qat,size=100K,seed=1', 'qat,size=100K', 'kill=between every=6 kills=3', 'kill=during every=4 kills=4'],
    [
      'hisi,size=40K,seed=3,short=9000,block=3',
      'hisi,size=40K,short=5000,block=2',
      'kill=during every=7 map=0 kills=4',
      'kill=during every=3 map=0 kills=3',
    ],
    [
      'pds,size=40K,seed=4',
      'pds,size=40K,block=20',
      'kill=between every=3 again=1 kills=4',
      'kill=during every=3 again=1 kills=2',
    ],
    ['mtty,seed=5', 'mtty', 'kill=during every=5 kills=3', 'kill=during every=3 map=0 kills=2'],
    [
      'vendor-v1,size=100K,section=16K,seed=6',
      'vendor-v1,size=100K,section=16K',
      'kill=during every=20 kills=3',
      'kill=during every=9 first=1 kills=3',
    ],
  ];
  it.each(inShort(migrations, (_, n) => n % 2 === 0))(
    'is succeeded, and the state is intact: %s to %s, %s, %s',
    { timeout: BUSY },
    async (from, to, save, load) => {
      expect(await migrate(from, to, save, load)).toBeGreaterThan(2);
    },
  );

  it.runIf(FULL)(
    'is succeeded at each call, and at any moment of it, with every driver',
    { timeout: patient(7_200_000) },
    async () => {
      let kills = 0;
      for (const driver of [
        'qat,size=300K',
        'hisi,size=300K',
        'pds,size=300K',
        'mtty',
        'vendor-v1,size=300K,section=16K',
      ]) {
        for (const [more, map] of [
          ['', 1],
          [',block=2', 1],
          ['', 0],
        ] as const) {
          for (const first of [0, 1, 2]) {
            const how = `every=3 first=${first} map=${map}`;
            kills += await migrate(
              `${driver},seed=7${more}`,
              `${driver}${more}`,
              `kill=between ${how}`,
              `kill=between ${how}`,
            );
            kills += await migrate(
              `${driver},seed=8${more}`,
              `${driver}${more}`,
              `kill=during ${how}`,
              `kill=during ${how}`,
            );
          }
        }
      }
      expect(kills).toBeGreaterThan(1000);
    },
  );

  it.runIf(FULL)(
    'leaves a mapping, or an error, wherever in mmap it is killed',
    { timeout: patient(3_600_000) },
    async () => {
      let [mapped, kills] = [0, 0];
      for (let n = 0; n < 150; n += 1) {
        const args = 'kill=during every=1000 first=1 at_map=1'.split(' ');
        // migrant.c looks at the address, and at which signals are blocked
        const { done } = await migrant('qat', ['save', join(directory, 'mapped'), `spin=${100 + n * 3}`, ...args]);
        kills += done.kills; // none where all was over before
        mapped += done.mapped;
      }
      expect(kills).toBeGreaterThan(75);
      expect(mapped).toBeGreaterThan(0);
    },
  );

  async function openPuppet(
    device: string,
    json = false,
    leavesDirectory = false,
  ): Promise<{ run: ShimRun; user: VfioPuppet; device: DevicePuppet }> {
    const run = start([compiled('puppet')], { devices: [device], leavesDirectory, json });
    const user = new VfioPuppet(new Puppet(run));
    return { run, user, device: (await user.openDevices()).devices[0] as DevicePuppet };
  }

  const points: [string, number, string][] = [
    ['has received a call', SECCOMP_IOCTL_NOTIF_RECV, 'kill-at-exit'],
    ['is about to answer', SECCOMP_IOCTL_NOTIF_SEND, 'kill-at-entry'],
  ];
  const untraceable = lacksTracing();
  it.skipIf(untraceable !== undefined).each(inShort(points, (_, n) => n === 0))(
    `at each call, just when it %s${because(untraceable)}`,
    { timeout: patient(180_000) },
    async (_, request, when) => {
      const specs = ['qat,size=40K,seed=9', 'qat,size=40K'];
      const [source, destination] = await Promise.all(specs.map(async (spec) => openPuppet(spec, true)));
      if (source === undefined || destination === undefined) throw new Error('unreachable');
      let kills = 0;
      let previous = 0;
      const arm = async ({ run }: { run: ShimRun }): Promise<void> => {
        previous = await run.supervisor(previous);
        await ambush(previous, when, request);
        kills += 1;
      };
      source.user.beforeAccess = async () => arm(source);
      await source.device.enter(V1.STOP_COPY);
      const buffers = await source.device.save();
      await source.device.enter(V1.STOP);
      destination.user.beforeAccess = async () => arm(destination);
      await destination.device.enter(V1.RESUMING);
      await destination.device.load(buffers);
      await destination.device.enter(V1.RUNNING);
      expect(kills).toBeGreaterThan(10);
      for (const { run } of [source, destination]) {
        run.end();
        expect(await run.ended()).toEqual({ code: 0, signal: null });
      }
      const [sent, arrived] = [source.run.reports()[0], destination.run.reports()[0]];
      expect(sent?.states).toEqual(['RUNNING', 'STOP_COPY', 'STOP']);
      expect(arrived?.states).toEqual(['RUNNING', 'RESUMING', 'RUNNING']);
      expect(arrived?.sha256).toBe(sent?.sha256);
      // each buffer was counted once
      expect([arrived?.bytesIn, arrived?.buffersIn]).toEqual([sent?.bytesOut, sent?.buffersOut]);
      expect(sent?.bytesOut).toBe(40 * 1024 + 32);
    },
  );

  const opening = [
    ['has received it', SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_RECV, 'kill-at-exit'],
    ['is about to answer', SECCOMP_IOCTL_NOTIF_SEND, SECCOMP_IOCTL_NOTIF_ADDFD, 'kill-at-entry'],
    ['has given a descriptor', SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_ADDFD, 'kill-at-exit'],
  ] as const;
  it.skipIf(untraceable !== undefined).each(inShort(opening, (_, n) => n === 2))(
    `at each call by which a VMM opens its devices, just when it %s${because(untraceable)}`,
    { timeout: BUSY },
    async (_, request, ofDescriptor, when) => {
      const run = start([compiled('puppet')], { devices: ['qat,size=8K,seed=3', 'mtty'] });
      const user = new VfioPuppet(new Puppet(run));
      let previous = 0;
      let kills = 0;
      user.beforeCall = async (givesDescriptor) => {
        previous = await run.supervisor(previous);
        await ambush(previous, when, givesDescriptor ? ofDescriptor : request);
        kills += 1;
      };
      const { groups, devices } = await user.openDevices(2);
      expect(kills).toBe(10);
      user.beforeCall = undefined;
      for (const device of devices) expect(await device.state()).toBe(V1.RUNNING);
      // the groups are open, and each has one opener
      for (const n of groups.keys()) expect((await user.open(`/dev/vfio/${9000 + n}`)).errno).toBe('EBUSY');
      const [qat, mtty] = devices as [DevicePuppet, DevicePuppet];
      await qat.enter(V1.STOP_COPY);
      expect(Buffer.concat(await qat.save()).length).toBe(8192 + 32);
      expect(await mtty.state()).toBe(V1.RUNNING);
    },
  );

  it('leaves calls that wait for their device to its successor', async () => {
    const { run, device } = await openPuppet('qat,block=300');
    await device.enter(V1.STOP_COPY);
    const before = await run.supervisor();
    const waiting = [1, 2, 3].map((thread) => device.read(16, 8, thread)); // data_offset: has the data read
    expect(await device.state(4)).toBe(2);
    killHard(before);
    expect(await device.state(4)).toBe(2);
    const after = await run.supervisor(before);
    killHard(after);
    expect(await device.state(4)).toBe(2);
    expect(await Promise.all(waiting)).toEqual([SECTION, SECTION, SECTION]);
    expect(await device.read(24, 8)).toBe(65568n);
  });

  it('is succeeded while nobody calls, and twice at once', async () => {
    const { run, device, user } = await openPuppet('qat');
    for (let i = 0; i < 3; i += 1) {
      const pid = await run.supervisor();
      killHard(pid);
      killHard(await run.supervisor(pid));
      expect(await device.state()).toBe(V1.RUNNING);
    }
    expect((await user.ioctl(device.fd, VFIO_DEVICE_RESET)).errno).toBe('OK');
    expect(run.stderr.match(TAKES_OVER)?.length).toBe(6);
  });

  it('serves on without its keeper, and removes the directory in the end', async () => {
    const { run, device } = await openPuppet('qat');
    killHard(run.cast().keeper?.pid ?? -1);
    await poll(() => (run.cast().keeper === undefined ? true : undefined), 5000, 'the keeper lives');
    expect(await device.state()).toBe(V1.RUNNING);
    expect(existsSync(run.directory ?? '')).toBe(true);
    run.end();
    expect(await run.ended()).toEqual({ code: 0, signal: null });
    await poll(() => (run.processes().length === 0 ? true : undefined), 10_000, 'the supervisor lives');
    expect(existsSync(run.directory ?? '')).toBe(false);
  });

  it('serves on without its keeper, and without either the rest of the target goes on', async () => {
    const { run, device, user } = await openPuppet('qat', false, true);
    const mapping = BigInt(value(await user.mmap(device.fd, 65536, BAR0_AT)));
    const { keeper, supervisor } = run.cast();
    killHard(keeper?.pid ?? -1);
    await poll(() => (run.cast().keeper === undefined ? true : undefined), 5000, 'the keeper lives');
    expect(await device.state()).toBe(V1.RUNNING);
    expect((await user.open('/dev/vfio/vfio')).errno).toBe('OK');
    killHard(supervisor?.pid ?? -1);
    await poll(() => (run.cast().supervisor === undefined ? true : undefined), 5000, 'the supervisor lives');

    await user.poke(mapping + 5n, noise(16, 3));
    expect((await user.pread(device.fd, 16, BAR0_AT + 5n)).bytes).toEqual(noise(16, 3));
    expect((await user.pwrite(device.fd, noise(16, 4), BAR0_AT + 77n)).errno).toBe('OK');
    for (let i = 0; i < 3; i += 1) {
      expect((await user.pread(device.fd, 4, 7n << 40n)).errno).toBe('OK');
      expect((await user.pwrite(device.fd, new Uint8Array(4), 7n << 40n)).errno).toBe('ENOSYS');
      expect((await user.mmap(device.fd, 4096, BAR0_AT)).errno).toBe('ENOSYS');
      expect((await user.pread(device.fd, 4, device.region)).errno).toBe('ENOSYS');
      expect((await user.ioctl(device.fd, VFIO_DEVICE_RESET)).errno).toBe('ENOSYS');
      expect((await user.mmap(device.fd, 4096, device.region + SECTION)).errno).toBe('ENOSYS');
    }
    run.end();
    expect(await run.ended()).toEqual({ code: 0, signal: null });
    rmSync(run.directory ?? '', { recursive: true });
  });

  it('holds up no call that is cut off: a target killed while nobody serves it ends', async () => {
    const { run, device } = await openPuppet('qat');
    const { keeper, supervisor } = run.cast();
    process.kill(keeper?.pid ?? -1, 'SIGSTOP');
    killHard(supervisor?.pid ?? -1);
    await device.user.argumentsOf(1);
    let answered = false;
    const call = callText('pread64', [device.fd, '$args1', 4, device.region]);
    void device.user.puppet.send(call, 1).then(() => (answered = true));
    await device.user.puppet.call('getpid', []);
    run.signal('SIGKILL');
    expect(await run.ended()).toEqual({ code: null, signal: 'SIGKILL' });
    expect(answered).toBe(false);
    process.kill(keeper?.pid ?? -1, 'SIGCONT');
    await poll(
      () => (run.processes().length === 0 ? true : undefined),
      5000,
      () => run.describe(),
    );
  });
});
