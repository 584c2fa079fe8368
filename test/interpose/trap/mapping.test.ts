import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { expect, it } from 'vitest';
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  MAP_SHARED_VALIDATE,
  PROT_EXEC,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
} from '../../../src/abi/mman.ts';
import { RLIMIT_NOFILE } from '../../../src/abi/prctl.ts';
import { PAGE_SIZE } from '../../../src/sys/libc.ts';
import { V1 } from '../../../src/v1/states.ts';
import { noise } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { useShimRuns, type RunOptions } from '../../support/shim-run.ts';
import { nr, SECTION, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { FULL } from '../../support/runs.ts';
import { patient } from '../../support/patience.ts';

const { SIGCONT, SIGKILL, SIGSTOP, SIGUSR1 } = constants.signals;
const SIGRTMIN = 34;
const READ_WRITE = PROT_READ | PROT_WRITE;
const REFUSED = 'is not mapped, migration will be slow';
const many = FULL ? 20 : 1;
const patience = { timeout: patient(20_000 * (many + 1)) };
const section = 65_536;
const SHARED = expect.stringContaining('memfd:') as string;

describeWithCompiler('mmap of the data section', () => {
  const start = useShimRuns();

  async function open(options: RunOptions = {}, args: string[] = []): Promise<DevicePuppet> {
    const more = { options: ['--data-size', '64K'], ...options };
    const user = new VfioPuppet(new Puppet(start([compiled('puppet'), ...args], more)));
    return (await user.openDevices()).devices[0] as DevicePuppet;
  }

  /** mmap of the first page, again and again, as an operation of the puppet. */
  function mapping(device: DevicePuppet, times: number): string {
    return `loop ${times} ${nr('mmap')} 0 ${PAGE_SIZE} ${READ_WRITE} ${MAP_SHARED} ${device.fd} ${device.region + SECTION}`;
  }

  function descriptors(pid: number): string[] {
    return readdirSync(`/proc/${pid}/fd`);
  }

  /** What a process has open now that it had not: by what names. */
  function newOnes(pid: number, before: readonly string[]): string[] {
    const added = descriptors(pid).filter((fd) => !before.includes(fd));
    return added.map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
  }

  it('is the memory that pread and pwrite reach, at whatever part is mapped', async () => {
    const device = await open();
    const { user } = device;
    const before = descriptors(user.puppet.run.pid);
    const whole = BigInt(value(await user.mmap(device.fd, section, device.region + SECTION)));
    const last = BigInt(
      value(await user.mmap(device.fd, PAGE_SIZE, device.region + SECTION + BigInt(section - PAGE_SIZE))),
    );
    const bytes = noise(100, 4);
    await user.poke(last + BigInt(PAGE_SIZE - 100), bytes);
    expect(await user.peek(whole + BigInt(section - 100), 100)).toEqual(bytes);
    const end = device.region + SECTION + BigInt(section);
    expect((await user.pread(device.fd, 100, end - 100n)).bytes).toEqual(bytes);
    await user.pwrite(device.fd, noise(8, 5), device.region + SECTION + 4092n);
    expect(await user.peek(whole + 4092n, 8)).toEqual(noise(8, 5));
    // length is rounded up, and the other flags are the kernel's business
    const { puppet } = user;
    for (const flags of [MAP_SHARED_VALIDATE, MAP_SHARED | MAP_POPULATE, MAP_SHARED | MAP_FIXED]) {
      const at = (flags & MAP_FIXED) === 0 ? 0n : whole;
      const outcome = await puppet.call('mmap', [at, 1, READ_WRITE, flags, device.fd, device.region + SECTION]);
      expect(outcome.errno).toBe('OK');
      expect(await user.peek(outcome.value + 4092n, 4)).toEqual(noise(8, 5).subarray(0, 4));
    }
    const readOnly = await puppet.call('mmap', [
      0,
      PAGE_SIZE,
      PROT_NONE,
      MAP_SHARED,
      device.fd,
      device.region + SECTION,
    ]);
    expect(readOnly.errno).toBe('OK');
    expect(newOnes(user.puppet.run.pid, before), 'by which the memory is mapped').toEqual([SHARED]);
  });

  it('refuses what is not within the section, or not shared data', async () => {
    const device = await open({ devices: ['qat', 'qat'] });
    const { puppet } = device.user;
    const before = descriptors(puppet.run.pid);
    const at = device.region + SECTION;
    const cases: [string, number, bigint, number, number, bigint][] = [
      ['EINVAL', section, device.region, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', PAGE_SIZE, device.region, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', section + 1, at, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', PAGE_SIZE, at + BigInt(section), READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', PAGE_SIZE, at + 0xff_fffe_0000n, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', PAGE_SIZE, at + 512n, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', 0, at, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', -1, at, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', -PAGE_SIZE, at, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', 2 ** 53, at, READ_WRITE, MAP_SHARED, 0n],
      ['EINVAL', PAGE_SIZE, at, READ_WRITE, MAP_PRIVATE, 0n],
      ['EINVAL', PAGE_SIZE, at, READ_WRITE, 0, 0n],
      ['EPERM', PAGE_SIZE, at, READ_WRITE | PROT_EXEC, MAP_SHARED, 0n],
      ['EINVAL', PAGE_SIZE, at, READ_WRITE, MAP_SHARED | MAP_FIXED, 123n], // the kernel's own answer
      ['ENOMEM', PAGE_SIZE, at, READ_WRITE, MAP_SHARED | MAP_FIXED, 0xffff_ffff_ffff_0000n],
    ];
    for (const [errno, length, offset, protection, flags, address] of cases) {
      const outcome = await puppet.call('mmap', [address, length, protection, flags, device.fd, offset]);
      expect(outcome.errno, `${length} at ${offset}`).toBe(errno);
    }
    // other descriptors at these offsets are none of ours: the kernel says what it thinks of them
    const pipes = await puppet.script(`new ends 8; ${callText('pipe2', ['$ends', 0])}; get ends 0 8`);
    const [pipe = -1] = new Int32Array(pipes.bytes.buffer);
    for (const [other, errno] of [
      [pipe, 'ENODEV'],
      [999, 'EBADF'],
      [-1, 'EBADF'],
    ] as const) {
      expect((await puppet.call('mmap', [0, PAGE_SIZE, PROT_READ, MAP_SHARED, other, at])).errno).toBe(errno);
    }
    const anonymous = [0, PAGE_SIZE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, at] as const;
    expect((await puppet.call('mmap', anonymous)).errno).toBe('OK');
    for (const end of new Int32Array(pipes.bytes.buffer)) await puppet.call('close', [end]);
    expect(newOnes(puppet.run.pid, before), 'for what the kernel has refused').toEqual([SHARED]);
    expect(await device.state()).toBe(V1.RUNNING);
  });

  it('takes a descriptor again if the process has closed its own, or has put something else there', async () => {
    const device = await open();
    const { user } = device;
    const { pid } = user.puppet.run;
    const before = descriptors(pid);
    const map = async (): Promise<string> => (await user.mmap(device.fd, section, device.region + SECTION)).errno;
    expect(await map()).toBe('OK');
    const [given = -1] = descriptors(pid)
      .filter((fd) => !before.includes(fd))
      .map(Number);
    await user.puppet.call('close', [given]);
    expect(await map()).toBe('OK');
    expect(newOnes(pid, before)).toEqual([SHARED]);
    await user.puppet.call('dup3', [0, given, 0]);
    expect(await map()).toBe('OK');
    expect(newOnes(pid, before)).toEqual(expect.arrayContaining([SHARED]));
  });

  it('lets go of a process that is killed while it is led through the call', patience, async () => {
    const device = await open();
    const { puppet } = device.user;
    for (let i = 0; i < 150 * many; i += 1) {
      const delay = 200 + Math.floor(Math.random() * 2500);
      const script = `doomed ${delay} ${SIGKILL} ${mapping(device, 1000)}`;
      expect((await puppet.script(script, 0, 5000)).value).toBe(BigInt(SIGKILL));
    }
    expect(await device.state()).toBe(V1.RUNNING);
    expect((await puppet.script(mapping(device, 1))).value).toBe(1n);
  });

  it('goes on through SIGSTOP and SIGCONT', patience, async () => {
    const device = await open();
    const { puppet } = device.user;
    for (let i = 0; i < 60 * many; i += 1) {
      const delay = 200 + Math.floor(Math.random() * 2500);
      // the child's exit status is 0 only where every mmap succeeded
      const script = `doomed ${delay} ${SIGSTOP} ${mapping(device, 8)}; expect 8`;
      expect((await puppet.script(script, 0, 5000)).value).toBe(0n);
    }
    expect(await device.state()).toBe(V1.RUNNING);
  });

  it('leaves a stopped process stopped', async () => {
    const device = await open();
    const { puppet } = device.user;
    const { pid } = puppet.run;
    const state = (): string => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.[0] ?? '';
    const loop = puppet.script(mapping(device, 300));
    process.kill(pid, SIGSTOP);
    await poll(() => (state() === 'T' ? true : undefined), 5000, 'the target does not stop');
    for (let i = 0; i < 20; i += 1) expect(state()).toBe('T');
    process.kill(pid, SIGCONT);
    expect((await loop).value).toBe(300n);
  });

  it('loses no signal that arrives meanwhile', async () => {
    const device = await open();
    const { puppet } = device.user;
    const COUNT = 3000;
    await puppet.script(`handle ${SIGRTMIN}; handle ${SIGUSR1}`);
    await puppet.call('gettid', [], 2);
    const storm = [
      puppet.script(`storm ${SIGRTMIN} ${COUNT} 20 2`, 1),
      puppet.script(`storm ${SIGUSR1} ${COUNT} 20 2`, 3),
    ];
    const loop = await puppet.script(mapping(device, 200), 2);
    expect(loop).toMatchObject({ value: 200n, errno: 'OK' });
    for (const sent of await Promise.all(storm)) expect(sent.value).toBe(BigInt(COUNT));
    await puppet.call('gettid', [], 2);
    // real-time signals are queued, one by one
    expect((await puppet.script(`count ${SIGRTMIN}`)).value).toBe(BigInt(COUNT));
    expect((await puppet.script(`count ${SIGUSR1}`)).value).toBeGreaterThan(0n);
  });

  it('works, or is refused with EPERM, in a process that somebody else traces, which goes on', async () => {
    const device = await open({}, ['traced']);
    const { user } = device;
    const target = Number((await user.puppet.call('getpid', [])).value);
    const before = descriptors(target);
    for (let i = 0; i < 3; i += 1) {
      const { errno } = await user.mmap(device.fd, section, device.region + SECTION);
      expect(['OK', 'EPERM']).toContain(errno);
      if (errno !== 'OK') {
        // the line comes by another pipe than the answer
        const said = (): true | undefined => user.puppet.run.stderr.includes(REFUSED) || undefined;
        await poll(said, 10_000, () => `no warning\n${user.puppet.run.describe()}`);
      }
    }
    expect(descriptors(target)).toEqual(before);
    await device.enter(V1.STOP_COPY);
    expect((await device.save()).reduce((sum, { length }) => sum + length, 0)).toBe(65536 + 32);
  });

  it('needs one descriptor, or says so where there is none', async () => {
    const device = await open({ devices: ['qat', 'qat'] });
    const { user } = device;
    const { puppet } = user;
    await puppet.memory('limit', 16);
    value(await puppet.call('prlimit64', [0, RLIMIT_NOFILE, 0, '$limit']));
    const [, most = 0n] = new BigUint64Array((await puppet.get('limit', 16)).slice().buffer);
    const limit = async (descriptors: number): Promise<void> => {
      await puppet.put('limit', new Uint8Array(new BigUint64Array([BigInt(descriptors), most]).buffer));
      value(await puppet.call('prlimit64', [0, RLIMIT_NOFILE, '$limit', 0]));
    };
    const used = new Set(descriptors(puppet.run.pid));
    let free = 0;
    while (used.has(String(free))) free += 1;
    await limit(free);
    expect(['OK', 'EMFILE']).toContain((await user.mmap(device.fd, section, device.region + SECTION)).errno);
    expect((await user.open('/dev/vfio/vfio')).errno).toBe('EMFILE');
    expect((await user.open('/dev/vfio/9001')).errno).toBe('EMFILE');
    expect(await device.state()).toBe(V1.RUNNING);
    await limit(free + 2);
    expect((await user.mmap(device.fd, section, device.region + SECTION)).errno).toBe('OK');
    expect((await user.open('/dev/vfio/vfio')).errno).toBe('OK');
  });
});
