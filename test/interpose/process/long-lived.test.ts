import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { arch } from '../../../src/sys/libc.ts';
import { V1 } from '../../../src/v1/states.ts';
import { threadsOf, type Thread } from '../../../tools/vmm/threads.ts';
import { compiled, describeRunsWithCompiler } from '../../support/compiler.ts';
import { TURNS } from '../../support/growth.ts';
import { Puppet } from '../../support/puppet.ts';
import { AT_LENGTH } from '../../support/runs.ts';
import { statusOf, useShimRuns, type ShimRun } from '../../support/shim-run.ts';
import { VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

/*
 * What a VM that runs for months needs of keeper and supervisor. Neither has anything to do by the clock while nothing happens, so what
 * stands for the months is events: calls that are served, and supervisors that die.
 */

const LONG = 180_000;
const MIB = 1024;

interface Served {
  readonly run: ShimRun;
  readonly device: DevicePuppet;
  readonly keeper: number;
  readonly supervisor: number;
}

/** What processes have open, by what it is, and what the run has made. */
function files(run: ShimRun, ...pids: readonly number[]): string[] {
  return [...pids.flatMap(openFiles), ...readdirSync(run.directory ?? '')];
}

function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`)
    .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$/, ''))
    .toSorted();
}

describeRunsWithCompiler('keeper and supervisor', () => {
  const start = useShimRuns('all');

  async function serve(options: readonly string[] = []): Promise<Served> {
    const run = start([compiled('puppet')], { devices: ['qat,size=64K'], options });
    const { devices } = await new VfioPuppet(new Puppet(run)).openDevices();
    const device = devices[0] as DevicePuppet;
    return { run, device, keeper: run.cast().keeper?.pid ?? -1, supervisor: await run.supervisor() };
  }

  /** Waits until a process has come to rest, and returns its threads then. */
  function rest(pid: number): Promise<Thread[]> {
    const resting = (): Thread[] | undefined => {
      const threads = threadsOf(pid);
      return threads.every(({ waitsForEver }) => waitsForEver) ? threads : undefined;
    };
    return poll(resting, LONG, () => JSON.stringify(threadsOf(pid)), 100);
  }

  // come to rest while other tests are under way: Node shrinks the heap of a program that has begun, for half a minute
  const idle: Served[] = [];
  let directory = '';
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'shim-idle-'));
    idle.push(await serve(), await serve(['--status', join(directory, 'socket')]));
  }, LONG);
  afterAll(() => rmSync(directory, { recursive: true }));

  it('keep nothing of 200,000 calls', { timeout: LONG }, async () => {
    const { run, device, keeper, supervisor } = await serve();
    const { puppet } = device.user;
    await puppet.memory('state', 4);
    const repeat = async (times: number): Promise<void> => {
      const call = `${arch.syscalls.pread64} ${device.fd} $state 4 ${device.region}`;
      expect((await puppet.script(`loop ${times} ${call}`, 0, LONG)).value).toBe(BigInt(times));
    };
    await repeat(TURNS / 10);
    const before = files(run, keeper, supervisor);
    const resident = statusOf(supervisor, 'VmRSS');
    await repeat(TURNS);
    expect(await device.state()).toBe(V1.RUNNING);
    expect(files(run, keeper, supervisor)).toEqual(before);
    // V8's new space is up to 16 MiB twice, and collected when it is full
    expect(statusOf(supervisor, 'VmRSS') - resident).toBeLessThan(40 * MIB);
    expect(await run.supervisor()).toBe(supervisor);
  });

  const deaths = AT_LENGTH ? 100 : 10;
  it(`keep nothing of ${deaths} supervisors that have died`, { timeout: deaths * 20_000 }, async () => {
    const { run, device, keeper, supervisor } = await serve();
    const next = async (pid: number): Promise<number> => {
      killHard(pid);
      expect(await device.state()).toBe(V1.RUNNING); // by the successor
      return run.supervisor(pid);
    };
    let last = await next(supervisor);
    await rest(last);
    const before = files(run, keeper, last);
    for (let n = 1; n < deaths; n += 1) last = await next(last);
    await rest(last);
    expect(files(run, keeper, last)).toEqual(before);
    expect(run.cast().others).toHaveLength(1); // the target
  });

  it.each([
    ['', 0],
    [', with --status and nobody who asks', 1],
  ])(
    'are not woken between two events, as all their threads wait without a timeout%s',
    { timeout: LONG },
    async (_, n) => {
      const { device, keeper, supervisor } = idle[n] as Served;
      const processes = [keeper, supervisor];
      const woken = (threads: readonly Thread[]): number => threads.reduce((sum, { switches }) => sum + switches, 0);
      expect(await device.state()).toBe(V1.RUNNING);
      const before = await Promise.all(processes.map(rest));
      // whatever the machine does meanwhile, it runs no thread that waits for what does not come
      const other = await serve();
      for (let n = 0; n < 100; n += 1) expect(await other.device.state()).toBe(V1.RUNNING);
      expect(processes.map(threadsOf)).toEqual(before);
      expect(await device.state()).toBe(V1.RUNNING);
      const [keeperAfter = [], supervisorAfter = []] = processes.map(threadsOf);
      expect(keeperAfter).toEqual(before[0]);
      expect(woken(supervisorAfter)).toBeGreaterThan(woken(before[1] ?? []));
    },
  );
});
