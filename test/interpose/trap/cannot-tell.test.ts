import { spawnSync } from 'node:child_process';
import { constants, chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { SEEK_END, SEEK_SET } from '../../../src/abi/fcntl.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import { PR_SET_DUMPABLE } from '../../../src/abi/prctl.ts';
import { VFIO_DEVICE_RESET } from '../../../src/abi/vfio.ts';
import { arch } from '../../../src/sys/libc.ts';
import { V1 } from '../../../src/v1/states.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { useShimRuns, type RunOptions } from '../../support/shim-run.ts';
import { O_TMPFILE, SECTION, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const { syscalls } = arch;
const root = process.getuid?.() === 0;
const setpriv = spawnSync('setpriv', ['--version']).status === 0;

describeWithCompiler('where serving is not allowed what it needs', () => {
  const start = useShimRuns();

  async function open(options: RunOptions): Promise<DevicePuppet> {
    const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { json: true, ...options })));
    return (await user.openDevices()).devices[0] as DevicePuppet;
  }

  it('a v1 migration has all of its state, though kcmp is refused', async () => {
    const prefix = [compiled('without'), String(syscalls.kcmp), '--'];
    const source = await open({ prefix, devices: ['qat,size=128K,seed=3'] });
    await source.enter(V1.STOP_COPY);
    const buffers = await source.save();
    await source.enter(V1.STOP);
    const destination = await open({ prefix, devices: ['qat,size=128K'] });
    await destination.enter(V1.RESUMING);
    await destination.load(buffers);
    await destination.enter(V1.RUNNING);
    const reports = [];
    for (const { user } of [source, destination]) {
      user.puppet.run.end();
      expect(await user.puppet.run.ended()).toEqual({ code: 0, signal: null });
      reports.push(user.puppet.run.reports()[0]);
    }
    const [sent, arrived] = reports;
    expect(sent?.bytesOut).toBe(128 * 1024 + 32);
    expect(arrived?.bytesIn).toBe(sent?.bytesOut);
    expect(arrived?.sha256).toBe(sent?.sha256);
  });

  it.each([
    ['pidfd_getfd', syscalls.pidfd_getfd],
    ['process_vm_readv', syscalls.process_vm_readv],
    ['process_vm_writev', syscalls.process_vm_writev],
  ])('a run says in one line that it needs %s, and does not begin', async (name, number) => {
    const prefix = [compiled('without'), String(number), '--'];
    const run = start(['sh', '-c', 'echo begun'], { prefix });
    const exit = await run.ended();
    expect(exit.code).toBeGreaterThan(0);
    expect(run.stdout).toBe('');
    expect(run.stderr.trimEnd().split('\n')).toEqual([
      expect.stringMatching(new RegExp(`^vfio-shim: run needs ${name}, which fails with EPERM here: .*CAP_SYS_PTRACE`)),
    ]);
  });

  it.skipIf(!root || !setpriv)(
    'a target that may not be looked into is told so by each call, and its device is as it was (with root and setpriv)',
    async () => {
      const user = ['--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all', '--bounding-set=-all'];
      // whose stderr cannot be reached either: what there is to say goes to the log
      const directory = mkdtempSync(join(tmpdir(), 'shim-log-'));
      chmodSync(directory, 0o777);
      const log = join(directory, 'log');
      const device = await open({ prefix: ['setpriv', ...user], options: ['--log', log] });
      const { puppet } = device.user;
      const other = value(await puppet.call('memfd_create', ['$args0', 0]));
      value(await puppet.call('ftruncate', [other, 4096]));
      value(await puppet.call('prctl', [PR_SET_DUMPABLE, 0]));
      const call = async (name: 'pread64' | 'pwrite64', offset: bigint): Promise<string> =>
        (await puppet.call(name, [device.fd, '$args0', 4, device.region + offset])).errno;
      for (const offset of [0n, SECTION]) {
        await expect.poll(() => call('pread64', offset)).toBe('EPERM'); // an answer holds for a millisecond
        expect(await call('pwrite64', offset)).toBe('EPERM');
      }
      expect((await puppet.call('ioctl', [device.fd, VFIO_DEVICE_RESET])).errno).toBe('EPERM');
      // what other files have too is the kernel's to answer
      expect((await puppet.call('lseek', [other, 4096, SEEK_END])).value).toBe(8192n);
      expect((await puppet.call('lseek', [other, 1n << 41n, SEEK_SET])).value).toBe(1n << 41n);
      expect((await puppet.call('mmap', [0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0])).errno).toBe('OK');
      expect(readFileSync(log, 'utf8').match(/cannot look into a process/g)?.length).toBe(1);
      rmSync(directory, { recursive: true });
      value(await puppet.call('prctl', [PR_SET_DUMPABLE, 1]));
      expect(await device.state()).toBe(V1.RUNNING);
    },
  );
});

describeWithCompiler('a register of the region', () => {
  const start = useShimRuns();

  /** Calls that the filter lets through, on the place of a register in the device's file. */
  it('is not to be had, nor to be written, behind the back of who serves it', async () => {
    const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: ['qat,size=64K'] })));
    const device = (await user.openDevices()).devices[0] as DevicePuppet;
    const { puppet } = user;
    const { fd, region } = device;
    await puppet.memory('data', 4096);
    const at = await puppet.memory('iov', 16);
    const data = (await puppet.script('new page 65536')).value;
    await puppet.put('iov', new Uint8Array(new BigUint64Array([data, 8n]).buffer));
    const ends = await puppet.script(`new ends 8; ${callText('pipe2', ['$ends', 0])}; get ends 0 8`);
    const [reader = -1, writer = -1] = new Int32Array(ends.bytes.buffer);
    const other = value(await user.open('/tmp', 0, O_TMPFILE | constants.O_RDWR));
    value(await puppet.call('pwrite64', [other, '$data', 64, 0]));
    await puppet.memory('offset', 8);
    const offset = async (value: bigint): Promise<void> =>
      puppet.put('offset', new Uint8Array(new BigUint64Array([value]).buffer));
    await device.enter(V1.STOP_COPY);
    for (const register of [0n, 8n, 16n, 24n]) {
      if (register === 8n) await device.read(8, 8);
      const place = region + register;
      const reads: [string, () => Promise<{ value: bigint; errno: string }>][] = [
        ['preadv', () => puppet.call('preadv', [fd, at, 1, place, 0])],
        ['preadv2', () => puppet.call('preadv2', [fd, at, 1, place, 0, 0])],
        ['lseek', () => puppet.call('lseek', [fd, place, 0])],
        [
          'sendfile',
          async () => {
            await offset(place);
            return puppet.call('sendfile', [writer, fd, '$offset', 8]);
          },
        ],
        [
          'splice',
          async () => {
            await offset(place);
            return puppet.call('splice', [fd, '$offset', writer, 0, 8, 0]);
          },
        ],
        [
          'copy_file_range',
          async () => {
            await offset(place);
            return puppet.call('copy_file_range', [fd, '$offset', other, 0, 8, 0]);
          },
        ],
      ];
      for (const [name, read] of reads) {
        const outcome = await read();
        expect(outcome.errno === 'OK' ? outcome.value : 0n, `${name} at ${register}`).toBe(0n);
      }
      const writes: typeof reads = [
        ['pwritev', () => puppet.call('pwritev', [fd, at, 1, place, 0])],
        ['pwritev2', () => puppet.call('pwritev2', [fd, at, 1, place, 0, 0])],
        [
          'splice',
          async () => {
            value(await puppet.call('write', [writer, '$data', 8]));
            await offset(place);
            return puppet.call('splice', [reader, 0, fd, '$offset', 8, 0]);
          },
        ],
        [
          'copy_file_range',
          async () => {
            await puppet.call('lseek', [other, 0, 0]);
            await offset(place);
            return puppet.call('copy_file_range', [other, 0, fd, '$offset', 8, 0]);
          },
        ],
      ];
      for (const [name, write] of writes) {
        expect((await write()).errno, `${name} at ${register}`).not.toBe('OK');
      }
      expect(await device.state()).toBe(V1.STOP_COPY);
    }
    expect(Buffer.concat(await device.save()).length).toBe(64 * 1024 + 32);
  });

  it('is of the device whose descriptor it is now', async () => {
    const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: ['qat', 'qat'] })));
    const [first, second] = (await user.openDevices(2)).devices as [DevicePuppet, DevicePuppet];
    await second.enter(V1.STOP_COPY);
    await user.puppet.memory('state', 8);
    const read = (at: bigint): string => callText('pread64', [first.fd, '$state', 4, at]);
    // within microseconds: the number that was the first device's is the second's
    const swap = callText('dup3', [second.fd, first.fd, 0]);
    const outcome = await user.puppet.script(`${read(first.region)}; ${swap}; ${read(second.region)}; get state 0 4`);
    expect(outcome).toMatchObject({ errno: 'OK', value: 4n, bytes: new Uint8Array([2, 0, 0, 0]) });
  });
});
