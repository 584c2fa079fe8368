import { spawnSync } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { AT_FDCWD, O_PATH } from '../../../src/abi/fcntl.ts';
import { callerMemory } from '../../../src/interpose/trap/caller-memory.ts';
import { reachesOthers } from '../../../src/sys/credentials.ts';
import { addressOf, arch } from '../../../src/sys/libc.ts';
import { readProcessMemoryTo, writeProcessMemoryFrom } from '../../../src/sys/process-memory.ts';
import { V1 } from '../../../src/v1/states.ts';
import { V2 } from '../../../src/v2/states.ts';
import { Child } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { noise } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { failure, outcome } from '../../support/errno.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { selfCall } from '../../support/self-call.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { setState } from '../../support/v2-puppet.ts';
import { value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const root = process.getuid?.() === 0;
const setpriv = spawnSync('setpriv', ['--version']).status === 0;
const canMount = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0;
const UMOUNT2 = arch.name === 'x64' ? 166 : 39;
const MNT_DETACH = 2;
const NOBODY = 65534;
const WINDOW = 0x3f00;

describe('a call whose caller is gone', () => {
  it('changes nothing and gets nothing, whoever has its number', async () => {
    const memory = noise(16);
    const call = selfCall(0, [0, addressOf(memory), 16]);
    let valid = true;
    call.begin({ isValid: () => valid });
    valid = false;
    const deadline = performance.now() + 2; // longer than what was seen counts
    while (performance.now() < deadline) await sleep(1);
    expect(outcome(() => call.writeArg(1, new Uint8Array(16)))).toBe('EINTR');
    expect(outcome(() => call.readArg(1, 16))).toBe('EINTR');
    expect(outcome(() => call.prove(addressOf(memory), 16))).toBe('EINTR');
    expect(outcome(() => call.stringArg(1, 16))).toBe('EINTR');
    expect(memory).toEqual(noise(16));
    valid = true;
    expect(call.readArg(1, 16)).toEqual(noise(16));
  });

  it.skipIf(!reachesOthers || !setpriv)(
    'is reached through memory that was opened while it waited, where it may do less than we (with CAP_SYS_PTRACE and setpriv)',
    async () => {
      const setprivToNobody = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
      const child = new Child([...setprivToNobody, 'cat'], { stdin: 'pipe' });
      child.stdin.write('x');
      await poll(() => (child.stdout === 'x' ? true : undefined), 20_000, 'cat to answer');
      const pid = child.pid ?? 0;
      const map = readFileSync(`/proc/${pid}/maps`, 'latin1')
        .split('\n')
        .find((line) => line.includes('[stack]'));
      const address = Number.parseInt(map?.split('-')[0] ?? '', 16);
      const gone = failure('EINTR', 'ERR_TARGET');
      const refused = (): never => {
        throw gone;
      };
      expect(outcome(() => callerMemory(pid, refused))).toBe('EINTR'); // nothing was kept of it
      const held = callerMemory(pid, () => {});
      expect(held).toBeGreaterThan(0);
      const bytes = noise(8);
      writeProcessMemoryFrom(pid, address, addressOf(bytes), 8, held);
      const found = new Uint8Array(8);
      readProcessMemoryTo(pid, address, addressOf(found), 8);
      expect(found).toEqual(bytes);
      child.kill();
      await child.exited;
      // by number it might be anybody's now; what is held is nobody's
      expect(outcome(() => writeProcessMemoryFrom(pid, address, addressOf(bytes), 8, held))).toBe('EFAULT');
      expect(
        callerMemory(process.pid, () => {}),
        'of our own rights',
      ).toBeUndefined();
    },
  );
});

describeWithCompiler('a target that has dropped its privileges', () => {
  const start = useShimRuns();

  /** A puppet that goes on as nobody, as `qemu -runas` does. */
  async function open(options: readonly string[], prefix: readonly string[] = []): Promise<DevicePuppet> {
    const devices = ['qat,size=64K,seed=4'];
    const user = new VfioPuppet(
      new Puppet(start([compiled('puppet')], { devices, options, prefix, json: prefix.length === 0 })),
    );
    const device = (await user.openDevices()).devices[0] as DevicePuppet;
    return device;
  }

  it.skipIf(!root)('is served as before, state and all (with root)', async () => {
    const source = await open(['--present', 'v1', '--data-size', '16K']);
    await source.user.puppet.dropPrivileges();
    await source.enter(V1.STOP_COPY);
    const buffers = await source.save();
    await source.enter(V1.STOP);
    const destination = await open(['--present', 'v1', '--data-size', '16K']);
    await destination.user.puppet.dropPrivileges();
    expect((await destination.user.puppet.call('pread64', [destination.fd, 8, 8, destination.region + 8n])).errno).toBe(
      'EFAULT',
    );
    await destination.enter(V1.RESUMING);
    await destination.load(buffers, undefined, 16384);
    await destination.enter(V1.RUNNING);
    const reports = [];
    for (const { user } of [source, destination]) {
      user.puppet.run.end();
      expect(await user.puppet.run.ended()).toEqual({ code: 0, signal: null });
      reports.push(user.puppet.run.reports()[0]);
    }
    expect(reports[0]?.bytesOut).toBe(64 * 1024 + 32);
    expect(reports[1]?.bytesIn).toBe(64 * 1024 + 32);
    expect(reports[1]?.sha256).toBe(reports[0]?.sha256);
  });

  it.skipIf(!canMount)('has no file opened for it, whatever its name is (with root)', async () => {
    // a file in the root of a file system that is mounted nowhere any more has a name like that of a stand-in
    const name = '/mnt/memfd:vfio-shim-migration';
    const mount = `mount -t tmpfs none /mnt && echo secret > ${name} && chmod 600 ${name} && exec "$@"`;
    const device = await open(['--present', 'v2'], ['unshare', '-m', 'sh', '-c', mount, 'sh']);
    const { user } = device;
    const { puppet } = user;
    await user.argumentsOf(0);
    await puppet.put('args0', Buffer.from(`${name}\0`));
    const path = value(await puppet.call('openat', [AT_FDCWD, '$args0', O_PATH, 0]));
    await puppet.put('args0', Buffer.from('/mnt\0'));
    value(await puppet.call(UMOUNT2, ['$args0', MNT_DETACH]));
    expect(readlinkSync(`/proc/${puppet.run.pid}/fd/${path}`)).toBe('/memfd:vfio-shim-migration');
    await puppet.dropPrivileges();
    value(await puppet.call('dup3', [path, WINDOW, 0]));
    const copy = value(await puppet.call('dup', [WINDOW]));
    expect(copy, 'an ordinary duplicate').toBeLessThan(WINDOW);
    const outcome = await puppet.script(`${callText('read', [copy, '$args0', 6])}; get args0 0 6`);
    expect(outcome.errno).toBe('EBADF');
    expect(Buffer.from(outcome.bytes).toString()).not.toContain('secret');
    value(await puppet.call('close', [WINDOW]));

    // a stand-in is duplicated still
    const saving = await setState(device, V2.STOP_COPY);
    const again = value(await puppet.call('dup', [saving]));
    expect(again).toBe(saving + 1);
    expect(value(await puppet.call('read', [again, '$args0', 16]))).toBe(16);
  });
});
