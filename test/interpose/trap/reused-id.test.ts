import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { expect, it } from 'vitest';
import type { SyscallName } from '../../../src/abi/syscalls.ts';
import { V2 } from '../../../src/v2/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { ambush } from '../../support/ambush.ts';
import { noise } from '../../support/bytes.ts';
import { compiled, describeRunsWithCompiler } from '../../support/compiler.ts';
import { because, chooseNextId, lacksChosenIds, lacksNobody, lacksTracing } from '../../support/host.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { setState } from '../../support/v2-puppet.ts';
import { nr, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const SIZE = 32 * 1024;
const TRIES = 200;

/** The children of a process, by their ids. */
function childrenOf(pid: number, thread: number): number[] {
  return readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

describeRunsWithCompiler('a thread whose id is given away while its call is served', () => {
  const start = useShimRuns();

  /** A puppet with two devices of the same content, the first of which has memory for a child's answer. */
  async function open(
    hasRights = true,
  ): Promise<{ puppet: Puppet; device: DevicePuppet; same: DevicePuppet; at: bigint }> {
    const devices = Array.from({ length: 2 }, () => `qat,size=${SIZE},seed=5`);
    const puppet = new Puppet(start([compiled('puppet')], { devices, options: ['--present', 'v2'] }));
    const opened = await new VfioPuppet(puppet).openDevices(2);
    const [device, same] = opened.devices as [DevicePuppet, DevicePuppet];
    await puppet.memory('all', 2 * SIZE);
    const at = await puppet.memory('answer', SIZE);
    await puppet.put('answer', noise(SIZE));
    if (!hasRights) await puppet.dropPrivileges();
    for (const thread of [1, 2]) await puppet.call('gettid', [], thread); // they take no id later
    return { puppet, device, same, at };
  }

  async function readAll(puppet: Puppet, fd: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for (;;) {
      const outcome = await puppet.script(`${callText('read', [fd, '$all', SIZE])}; get all 0 ${SIZE}`);
      if (value(outcome) === 0) return Buffer.concat(pieces);
      pieces.push(outcome.bytes.subarray(0, value(outcome)));
    }
  }

  /** A child of a thread of the puppet's; its id. */
  async function fork(puppet: Puppet, thread: number, script: string): Promise<number> {
    const tid = value(await puppet.call('gettid', [], thread));
    void puppet.send(`fork ${script}`, thread);
    return poll(() => childrenOf(puppet.run.pid, tid)[0], 10_000, `a child of thread ${tid}`, 1);
  }

  /** A child that has the id of one that has ended, and the memory that the puppet had when it was forked. */
  async function heir(puppet: Puppet, id: number): Promise<void> {
    for (let n = 0; n < TRIES; n += 1) {
      chooseNextId(id);
      const child = await fork(puppet, 2, 'sleep 1000000000');
      if (child === id) return;
      killHard(child);
      const tid = value(await puppet.call('gettid', [], 2)); // answered once the child has been waited for
      expect(childrenOf(puppet.run.pid, tid)).toEqual([]);
    }
    throw new Error(`process id ${id} is never given to a child of this test's`);
  }

  /**
   * Kills the caller of a read while the supervisor is held before the `count`th of some system calls, and lets it go on when the id
   * has a new owner.
   */
  async function check(
    { puppet, device, same, at }: Awaited<ReturnType<typeof open>>,
    count: number,
    ...heldBefore: readonly SyscallName[]
  ): Promise<void> {
    const fd = await setState(device, V2.STOP_COPY);
    const trap = await ambush(await puppet.run.supervisor(), 'hold', count, ...heldBefore.map(nr));
    const caller = await fork(puppet, 1, callText('read', [fd, '$answer', SIZE]));
    try {
      expect(await trap.says()).toBe(`held ${nr(heldBefore[0] as SyscallName)}`);
      killHard(caller);
      value(await puppet.call('gettid', [], 1)); // the caller has been waited for
      await heir(puppet, caller);
    } finally {
      trap.release();
    }

    // what the dead asked for is there still, all of it
    const [sent, expected] = [await readAll(puppet, fd), await readAll(puppet, await setState(same, V2.STOP_COPY))];
    expect(expected.length).toBeGreaterThan(SIZE);
    expect(sent).toBeBytes(expected);
    const found = new Uint8Array(SIZE);
    const memory = openSync(`/proc/${caller}/mem`, 'r');
    try {
      readSync(memory, found, 0, SIZE, at);
    } finally {
      closeSync(memory);
      killHard(caller);
    }
    expect(found).toBeBytes(noise(SIZE));
    value(await puppet.call('gettid', [], 2));
  }

  const lacking = lacksTracing() ?? lacksChosenIds();
  it.skipIf(lacking !== undefined)(`leaves no answer to who has it then${because(lacking)}`, async () => {
    await check(await open(), 1, 'statx'); // by which the supervisor tells what file the call is on
  });

  const lackingUser = lacking ?? lacksNobody();
  it.skipIf(lackingUser !== undefined)(
    `nor where it has given up its rights, to the last moment${because(lackingUser)}`,
    async () => {
      await check(await open(false), 1, 'pwrite64', 'process_vm_writev');
    },
  );
});
