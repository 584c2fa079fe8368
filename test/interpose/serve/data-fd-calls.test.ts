import { constants } from 'node:fs';
import { expect, it } from 'vitest';
import { iovec } from '../../../src/abi/ptrace.ts';
import type { SyscallName } from '../../../src/abi/syscalls.ts';
import { V2 } from '../../../src/v2/states.ts';
import { noise } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet, type Argument } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { setState } from '../../support/v2-puppet.ts';
import { BAR0_AT, O_TMPFILE, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const SIZE = 8192;
const STATE = SIZE + 32;
const HERE = 2n ** 64n - 1n;

/** What the kernel answers of a driver that has read and write alone (stream_open; fs/read_write.c, fs/splice.c of Linux 6.12). */
describeWithCompiler('the data fd of a presented v2 device', () => {
  const start = useShimRuns();
  let buffer = 0n;

  async function open(spec: string): Promise<DevicePuppet> {
    const puppet = new Puppet(start([compiled('puppet')], { devices: [spec], options: ['--present', 'v2'] }));
    const { devices } = await new VfioPuppet(puppet).openDevices();
    buffer = await puppet.memory('data', 65536);
    await puppet.memory('iov', 64);
    return devices[0] as DevicePuppet;
  }

  /** Names pieces of memory, by their offsets and lengths in `data`. */
  async function pieces({ user }: DevicePuppet, ...all: [at: number | bigint, length: number][]): Promise<void> {
    const bytes = Buffer.concat(
      all.map(([at, length]) =>
        iovec.encode({ iov_base: typeof at === 'bigint' ? at : buffer + BigInt(at), iov_len: BigInt(length) }),
      ),
    );
    await user.puppet.put('iov', bytes);
  }

  async function errno({ user }: DevicePuppet, name: SyscallName, args: readonly Argument[]): Promise<string> {
    return (await user.puppet.call(name, args)).errno;
  }

  /** A pipe, and a file that is open for reading and writing. */
  async function others({ user }: DevicePuppet): Promise<{ reader: number; writer: number; file: number }> {
    const ends = await user.puppet.script(`new ends 8; ${callText('pipe2', ['$ends', 0])}; get ends 0 8`);
    const [reader = -1, writer = -1] = new Int32Array(ends.bytes.buffer);
    const file = value(await user.open('/tmp', 0, O_TMPFILE | constants.O_RDWR));
    value(await user.puppet.call('pwrite64', [file, '$data', 64, 0]));
    return { reader, writer, file };
  }

  it.each(['qat', 'vendor-v1'])('%s: is read and written in pieces of memory, to the last byte', async (driver) => {
    const spec = `${driver},size=${SIZE}`;
    const source = await open(spec);
    const { puppet } = source.user;
    value(await source.user.pwrite(source.fd, noise(SIZE, 3), BAR0_AT));
    const saving = await setState(source, V2.STOP_COPY);
    await pieces(source, [8n, 16]);
    expect(await errno(source, 'readv', [saving, '$iov', 1])).toBe('EFAULT');
    await pieces(source, [0, 16], [8n, 16]);
    expect(await errno(source, 'readv', [saving, '$iov', 2])).toBe('EFAULT');
    expect(await errno(source, 'readv', [saving, '$iov', 1025])).toBe('EINVAL');
    expect((await puppet.call('readv', [saving, '$iov', 0])).value).toBe(0n);
    const read: Uint8Array[] = [];
    for (let turn = 0; ; turn += 1) {
      await pieces(source, [0, 10], [100, 0], [10, 22], [32, 1000]);
      const call =
        turn % 2 === 0
          ? callText('readv', [saving, '$iov', 4])
          : callText('preadv2', [saving, '$iov', 4, HERE, HERE, 0]);
      const outcome = await puppet.script(`${call}; get data 0 1032`);
      if (value(outcome) === 0) break;
      read.push(outcome.bytes.subarray(0, value(outcome)));
    }
    const state = Buffer.concat(read);
    await setState(source, V2.STOP);

    const destination = await open(spec);
    const to = destination.user.puppet;
    const resuming = await setState(destination, V2.RESUMING);
    await to.put('data', state);
    await pieces(destination, [8n, 16]);
    expect(await errno(destination, 'writev', [resuming, '$iov', 1])).toBe('EFAULT');
    for (let done = 0, turn = 0; done < state.length; turn += 1) {
      const left = state.length - done;
      await pieces(destination, [done, Math.min(10, left)], [done + 10, Math.min(3000, Math.max(0, left - 10))]);
      const outcome =
        turn % 2 === 0
          ? await to.call('writev', [resuming, '$iov', 2])
          : await to.call('pwritev2', [resuming, '$iov', 2, HERE, HERE, 0]);
      done += value(outcome);
    }
    await setState(destination, V2.RUNNING);
    expect((await destination.user.pread(destination.fd, SIZE, BAR0_AT)).bytes).toEqual(noise(SIZE, 3));
    if (driver === 'qat') expect(state.length).toBe(STATE);
  });

  it('has no position, and cannot be spliced: programs fall back to read', async () => {
    const device = await open(`qat,size=${SIZE}`);
    const { reader, writer, file } = await others(device);
    await pieces(device, [0, 16]);
    const cases = (fd: number): [SyscallName, Argument[], reads: string, writes: string][] => [
      ['lseek', [fd, 0, 1], 'ESPIPE', 'ESPIPE'],
      ['pread64', [fd, '$data', 16, 0], 'ESPIPE', 'ESPIPE'],
      ['pwrite64', [fd, '$data', 16, 0], 'ESPIPE', 'ESPIPE'],
      ['preadv', [fd, '$iov', 1, 0, 0], 'ESPIPE', 'ESPIPE'],
      ['pwritev', [fd, '$iov', 1, 0, 0], 'ESPIPE', 'ESPIPE'],
      ['preadv2', [fd, '$iov', 1, 0, 0, 0], 'ESPIPE', 'ESPIPE'],
      ['pwritev2', [fd, '$iov', 1, 0, 0, 0], 'ESPIPE', 'ESPIPE'],
      ['preadv2', [fd, '$iov', 1, HERE, HERE, 8], 'EOPNOTSUPP', 'EOPNOTSUPP'], // RWF_NOWAIT
      ['splice', [fd, 0, writer, 0, 16, 0], 'EINVAL', 'EBADF'],
      ['splice', [reader, 0, fd, 0, 16, 0], 'EBADF', 'EINVAL'],
      ['sendfile', [file, fd, 0, 16], 'EINVAL', 'EBADF'],
      ['sendfile', [file, fd, '$data', 16], 'ESPIPE', 'EBADF'],
      ['sendfile', [fd, file, 0, 16], 'EBADF', 'EINVAL'],
      ['copy_file_range', [fd, 0, file, 0, 16, 0], 'EINVAL', 'EINVAL'],
      ['copy_file_range', [file, 0, fd, 0, 16, 0], 'EINVAL', 'EINVAL'],
    ];
    const saving = await setState(device, V2.STOP_COPY);
    for (const [name, args, expected] of cases(saving)) {
      expect(await errno(device, name, args), `${name} ${args.join(' ')}`).toBe(expected);
    }
    // not a byte is gone
    let length = 0;
    for (let read = -1; read !== 0; length += read) {
      read = value(await device.user.puppet.call('read', [saving, '$data', 4096]));
    }
    expect(length).toBe(STATE);
    await setState(device, V2.STOP);
    const resuming = await setState(device, V2.RESUMING);
    for (const [name, args, , expected] of cases(resuming)) {
      expect(await errno(device, name, args), `${name} ${args.join(' ')}`).toBe(expected);
    }
  });

  it('is no other file at its numbers', async () => {
    const device = await open(`qat,size=${SIZE}`);
    const { puppet } = device.user;
    const { file } = await others(device);
    const at = 0x3f05;
    value(await puppet.call('dup3', [file, at, 0]));
    await pieces(device, [0, 16]);
    for (const [name, args, expected] of [
      ['lseek', [at, 0, 0], 0],
      ['read', [at, '$data', 16], 16],
      ['readv', [at, '$iov', 1], 16],
      ['write', [at, '$data', 8], 8],
      ['pread64', [at, '$data', 16, 0], 16],
      ['preadv', [at, '$iov', 1, 0, 0], 16],
      ['pwritev', [at, '$iov', 1, 0, 0], 16],
      ['sendfile', [file, at, 0, 0], 0],
      ['copy_file_range', [at, 0, file, 0, 0, 0], 0],
    ] as [SyscallName, Argument[], number][]) {
      expect(await puppet.call(name, args), name).toMatchObject({ errno: 'OK', value: BigInt(expected) });
    }
  });
});
