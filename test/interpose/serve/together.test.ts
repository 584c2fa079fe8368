import { describe, expect, it } from 'vitest';
import { PRESENT_V2_STATE_SIZE } from '../../../src/bridge/present-v2-state.ts';
import { presentV2 } from '../../../src/bridge/present-v2.ts';
import { Ledger, Ledgers, ledgerSize, LEDGERS_SIZE } from '../../../src/interpose/memory/ledger.ts';
import { p2p_state } from '../../../src/interpose/memory/p2p-state.ts';
import { Turn } from '../../../src/interpose/memory/turn.ts';
import type { Devices } from '../../../src/interpose/serve/devices.ts';
import { Router } from '../../../src/interpose/serve/router.ts';
import { serve } from '../../../src/interpose/serve/serve.ts';
import { Together } from '../../../src/interpose/serve/together.ts';
import { arch } from '../../../src/sys/libc.ts';
import type { V2Device } from '../../../src/v2/device.ts';
import { V2 } from '../../../src/v2/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { notYet } from '../../support/errno.ts';
import { Puppet } from '../../support/puppet.ts';
import { selfCall } from '../../support/self-call.ts';
import { NoAnswers } from '../../support/self-turn.ts';
import { useShimRuns, type ShimRun } from '../../support/shim-run.ts';
import { TapeV1 } from '../../support/tape-v1.ts';
import { getState, setState } from '../../support/v2-puppet.ts';
import { VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const DEVICE = 'vendor-v1,size=64K';

describeWithCompiler('v1 devices of a VM that are offered P2P', () => {
  const start = useShimRuns();

  /** What the drivers were asked for, in one order. */
  function states({ stderr }: ShimRun): string[] {
    return [...stderr.matchAll(/0000:9([01]):00\.0: the device is in (\w+)/g)].map(([, n, state]) => `${n} ${state}`);
  }

  it('are stopped and started in a row, under successors of killed supervisors too, or after a while', async () => {
    const run = start([compiled('puppet')], { devices: [DEVICE, DEVICE], options: ['--offer-p2p', '-v'] });
    const { devices } = await new VfioPuppet(new Puppet(run)).openDevices(2);
    const [first, second] = devices as [DevicePuppet, DevicePuppet];
    let supervisor = await run.supervisor();
    const succeed = async (): Promise<void> => {
      killHard(supervisor);
      supervisor = await run.supervisor(supervisor);
    };
    const shown = async (): Promise<number[]> => [await getState(first), await getState(second)];

    for (const device of [first, second]) await setState(device, V2.PRE_COPY);
    await setState(first, V2.PRE_COPY_P2P);
    expect(await shown()).toEqual([V2.PRE_COPY_P2P, V2.PRE_COPY]);
    await poll(() => states(run)[3], 10_000, 'the drivers save');
    expect(states(run).slice(2)).toEqual(['0 PRE_COPY', '1 PRE_COPY']);
    await succeed();
    await setState(second, V2.PRE_COPY_P2P);
    await poll(() => states(run)[5], 10_000, 'the drivers stop');
    expect(states(run).slice(4)).toEqual(['0 STOP_COPY', '1 STOP_COPY']);

    await setState(first, V2.RUNNING);
    expect(await shown()).toEqual([V2.RUNNING, V2.PRE_COPY_P2P]);
    await succeed();
    await poll(() => states(run)[7], 10_000, 'the first driver runs');
    expect(states(run).slice(6)).toEqual(['0 STOP', '0 RUNNING']);
    await setState(second, V2.RUNNING);

    await setState(second, V2.RUNNING_P2P);
    expect(await shown()).toEqual([V2.RUNNING, V2.RUNNING_P2P]);
    await poll(() => states(run)[9], 10_000, 'the second driver stops');
    expect(states(run).slice(8)).toEqual(['1 RUNNING', '1 STOP']);
    expect(await shown()).toEqual([V2.RUNNING, V2.RUNNING_P2P]);
  });
});

describe('a call that changes devices besides its own', () => {
  const ARENA = p2p_state.size + PRESENT_V2_STATE_SIZE;
  const all = new Uint8Array(LEDGERS_SIZE);
  const memory = [0, 1].map(() => new Uint8Array(ledgerSize(ARENA)));

  /** A supervisor over that memory, which serves the devices of this process: openat asks the second for RUNNING_P2P. */
  function supervise(tapes: readonly TapeV1[]): {
    ledgers: Ledgers;
    each: readonly Ledger[];
    devices: V2Device[];
    router: Router;
  } {
    const ledgers = new Ledgers(all);
    const each = memory.map((bytes, index) => new Ledger(ledgers, index, bytes, ARENA));
    const together = new Together({ commit: (changed) => ledgers.commit(changed), warn: () => {} });
    const devices = each.map((ledger, n) => {
      const [p2p, state] = [ledger.arena.subarray(0, p2p_state.size), ledger.arena.subarray(p2p_state.size)];
      const device = presentV2((tapes[n] as TapeV1).device, { state, offerP2P: true });
      const peer = { name: String(n), ledger, device, enter: () => true, leave: () => {} };
      const joined = together.offered.join(peer, p2p);
      together.usedBy(ledger, process.pid);
      return joined;
    });
    const served: Devices = {
      at: () => undefined,
      whose: () => undefined,
      reports: () => [],
      rehearsalDrivers: () => [],
      ioctl: () => 0,
      work: () => Infinity,
      open: (turn) => {
        turn.touch(each[1] as Ledger);
        devices[1]?.setState(V2.RUNNING_P2P);
        return 0;
      },
    };
    return { ledgers, each, devices, router: new Router(served, undefined, together) };
  }

  it('commits them all when it is served, though it had to wait for one in between', () => {
    const tapes = [new TapeV1(), new TapeV1()];
    const { ledgers, each, devices, router } = supervise(tapes);
    devices[0]?.setState(V2.RUNNING_P2P);
    ledgers.commit(each);
    tapes[1]?.refusals.set('1 0', { error: notYet() });
    const call = selfCall(arch.syscalls.openat, []);
    const turn = new Turn(new NoAnswers(), ledgers, call);
    expect(serve(call, turn, router)?.errno).toBe('EAGAIN');
    expect(tapes.map(({ state }) => state)).toEqual([0, 1]);
    expect(serve(call, turn, router)).toBeUndefined();
    expect(tapes.map(({ state }) => state)).toEqual([0, 0]);
    const successor = new Ledgers(all);
    const waiting = memory.map((bytes, n) => p2p_state.view(new Ledger(successor, n, bytes, ARENA).arena).quiet);
    expect(waiting).toEqual([0, 0]);
  });
});
