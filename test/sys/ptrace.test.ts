import { readFileSync, readlinkSync } from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { constants } from 'node:os';
import { trySyscall } from '../../src/sys/libc.ts';
import { TracedThread } from '../../src/sys/ptrace.ts';
import { outcome } from '../support/errno.ts';
import { compiled, describeRunsWithCompiler } from '../support/compiler.ts';
import { callText, Puppet, type PuppetHost } from '../support/puppet.ts';
import { Child } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';

/** A puppet that is a grandchild: its stops are ours to see, and its end is for its parent, a shell that says so. */
class Grandchild implements PuppetHost {
  ended: string | undefined;
  readonly started: Promise<number>;
  readonly #shell: Child;
  readonly #listeners: ((line: string) => void)[] = [];

  constructor(program: string) {
    const script = 'exec 3<&0; "$0" <&3 & echo pid $!; wait $!; echo ended $?';
    let started = (_pid: number): void => {};
    this.started = new Promise((resolve) => (started = resolve));
    this.#shell = new Child(['sh', '-c', script, program], {
      stdin: 'pipe',
      onOutput: (line) => {
        const [word, number = ''] = line.split(' ');
        if (word === 'pid') started(Number(number));
        else if (word === 'ended') this.ended = number;
        else for (const listener of this.#listeners) listener(line);
      },
    });
  }

  write(text: string): void {
    this.#shell.stdin.write(text);
  }

  onLine(listener: (line: string) => void): void {
    this.#listeners.push(listener);
  }

  describe(): string {
    return `puppet without a shim, ${this.ended ?? 'running'}`;
  }

  close(): void {
    this.#shell.stdin.end();
  }
}

describeRunsWithCompiler('TracedThread', () => {
  let host: Grandchild;
  let puppet: Puppet<Grandchild>;
  let pid: number;
  let reader: number;
  let writer: number;

  beforeEach(async () => {
    host = new Grandchild(compiled('puppet'));
    puppet = new Puppet(host);
    pid = await host.started;
    const ends = await puppet.script(`new ends 8; new data 8; ${callText('pipe2', ['$ends', 0])}; get ends 0 8`);
    [reader = -1, writer = -1] = new Int32Array(ends.bytes.buffer);
  });

  afterEach(async () => {
    host.close();
    await poll(() => host.ended, 5000, 'the puppet does not end');
  });

  /** The id of the puppet's second thread, which is in a read() of the pipe; and the read's outcome. */
  async function blocked(): Promise<{ tid: number; read: Promise<{ value: bigint; errno: string }> }> {
    const tid = Number((await puppet.call('gettid', [], 1)).value);
    const read = puppet.send(callText('read', [reader, '$data', 8]), 1);
    const isReading = (): true | undefined =>
      readFileSync(`/proc/${pid}/task/${tid}/stat`, 'utf8').split(') ')[1]?.startsWith('S') === true ? true : undefined;
    await puppet.call('getpid', []);
    await poll(isReading, 5000, 'the thread does not read');
    return { tid, read };
  }

  function tracerOf(tid: number): string | undefined {
    return /^TracerPid:\s+(\d+)/m.exec(readFileSync(`/proc/${tid}/status`, 'utf8'))?.[1];
  }

  it('lets a thread make calls and then return from its own with any result', async () => {
    const { tid, read } = await blocked();
    {
      using thread = new TracedThread(tid);
      thread.seize();
      expect(tracerOf(tid)).toBe(String(process.pid));
      thread.waitUntilStopped();
      expect(thread.inject('getpid', [])).toBe(BigInt(pid));
      expect(thread.inject('gettid', [])).toBe(BigInt(tid));
      const copy = thread.inject('dup', [BigInt(reader)]);
      expect(readlinkSync(`/proc/${pid}/fd/${copy}`)).toBe(readlinkSync(`/proc/${pid}/fd/${reader}`));
      expect(thread.inject('close', [copy])).toBe(0n);
      expect(thread.inject('close', [copy])).toBe(-9n);
      expect(thread.inject('lseek', [BigInt(reader), 1n, 2n, 3n, 4n, 5n])).toBe(-29n);
      thread.finish(123n);
    }
    expect(await read).toMatchObject({ value: 123n, errno: 'OK' });
    expect(tracerOf(tid)).toBe('0');
    expect((await puppet.call('gettid', [], 1)).value).toBe(BigInt(tid));
  });

  it('leaves a thread that nobody finished where it was', async () => {
    const { tid, read } = await blocked();
    for (let stage = 0; stage < 4; stage += 1) {
      using thread = new TracedThread(tid);
      if (stage > 0) thread.seize();
      if (stage > 1) thread.waitUntilStopped();
      if (stage > 2) thread.inject('getpid', []);
    }
    expect(tracerOf(tid)).toBe('0');
    expect(readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8')).toMatch(/^SigBlk:\s+0{16}$/m);
    await puppet.put('data', new Uint8Array(8).fill(7));
    await puppet.call('write', [writer, '$data', 5]);
    expect(await read).toMatchObject({ value: 5n, errno: 'OK' });
  });

  it('leaves a thread its signals: one that comes first ends what is done to it, which it makes good', async () => {
    const { tid, read } = await blocked();
    {
      using thread = new TracedThread(tid);
      thread.seize();
      thread.waitUntilStopped();
      expect(readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8')).toMatch(/^SigBlk:\s+0{16}$/m);
      expect(thread.inject('getpid', [])).toBe(BigInt(pid));
      expect(trySyscall('tgkill', pid, tid, constants.signals.SIGURG)).toBe(0);
      expect(outcome(() => thread.inject('getpid', []))).toBe('EINTR');
      expect(thread.isInterrupted).toBe(true);
      thread.leaveTo('gettid', []);
    }
    expect(await read).toMatchObject({ value: BigInt(tid), errno: 'OK' });
    expect(tracerOf(tid)).toBe('0');
  });

  it('says ESRCH of a thread that is not there, or that ends, which its parent then hears of', async () => {
    expect(outcome(() => new TracedThread(0x7fff_fff0).seize())).toBe('ESRCH');
    const { tid } = await blocked();
    {
      using thread = new TracedThread(tid);
      thread.seize();
      thread.waitUntilStopped();
      process.kill(pid, 'SIGKILL');
      expect(outcome(() => thread.inject('getpid', []))).toBe('ESRCH');
    }
    expect(await poll(() => host.ended, 5000, 'the parent is not told')).toBe('137');
  });

  it('is refused where somebody else traces', async () => {
    const { tid } = await blocked();
    using first = new TracedThread(tid);
    first.seize();
    expect(outcome(() => new TracedThread(tid).seize())).toBe('EPERM');
  });
});
