import { describe, expect, it } from 'vitest';
import type { Access, Accessed, Accessor } from '../../src/kernel/access-thread.ts';
import { ThreadedPort } from '../../src/kernel/threaded-port.ts';
import { createEventFd } from '../../src/sys/fd.ts';
import { writeSync } from 'node:fs';
import { POLLIN } from '../../src/abi/fcntl.ts';
import type { Caller } from '../../src/vfio/caller.ts';
import { BytePort } from '../support/byte-port.ts';
import { noise } from '../support/bytes.ts';
import { failure, outcome, thrownBy } from '../support/errno.ts';

const REGION = { index: 9, offset: 4096n };
const [STATE, PENDING, DATA_OFFSET, DATA_SIZE, DATA] = [0, 8, 16, 24, 32] as const;
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

/** A driver, a port that may have a thread wait for it, and how both are led. */
class World {
  readonly made: string[] = [];
  /** Handed to the thread. */
  readonly begun: Access[] = [];
  caller: Caller = 1n;
  others = true;
  now = 0;
  /** Milliseconds that the driver takes. */
  takes = 0;
  fails: ReturnType<typeof failure> | undefined;
  readonly port: ThreadedPort;
  readonly #wake = createEventFd();
  #ended: Accessed | undefined;

  constructor() {
    const port = new BytePort(new Uint8Array(8192));
    const access = (call: string, at: number, bytes: Uint8Array): number => {
      this.made.push(`${call} ${at}`);
      this.now += this.takes;
      if (this.fails !== undefined) throw this.fails;
      return bytes.length;
    };
    port.read = (_, at, into) => access('read', at, into);
    port.write = (_, at, from) => access('write', at, from);
    port.reset = () => void this.made.push('reset');
    const accessor: Accessor = {
      readiness: { fd: this.#wake.number, events: POLLIN },
      begin: (_, begun) => {
        if (this.#ended !== undefined) throw new Error('the last one was not asked for');
        this.begun.push(begun);
      },
      end: () => {
        const ended = this.#ended;
        this.#ended = undefined;
        return ended;
      },
    };
    this.port = new ThreadedPort(
      port,
      { number: -1 },
      {
        caller: () => this.caller,
        hasOthers: () => this.others,
        makeAccessor: () => accessor,
        clock: () => this.now,
      },
    );
  }

  /** The driver has taken this long for what the thread was given. */
  ends(bytes: Uint8Array, result = bytes.length, took = 50): void {
    this.#ended = { result, bytes, took };
    this.now += took + 0.1;
    writeSync(this.#wake.number, ONE);
  }

  read(at: number, caller: Caller = this.caller): Uint8Array {
    this.caller = caller;
    const into = new Uint8Array(8);
    this.port.read(REGION, at, into);
    return into;
  }

  write(at: number, bytes: Uint8Array): string {
    return outcome(() => void this.port.write(REGION, at, bytes));
  }

  /** Has an access measured that takes its time. */
  learn(call: 'read' | 'write', at: number, took = 50): void {
    this.takes = took;
    this.port[call](REGION, at, new Uint8Array(8));
    this.takes = 0;
    this.made.length = 0;
  }
}

const notYet = (act: () => unknown): unknown => expect(thrownBy(act)).toMatchObject({ code: 'ERR_NO_DATA_YET' });

describe('a port that may have a thread wait for its driver', () => {
  it('asks a driver itself that answers at once, and one that holds up nobody', () => {
    const world = new World();
    for (let n = 0; n < 5; n += 1) world.read(PENDING);
    world.others = false;
    world.learn('read', PENDING);
    world.read(PENDING);
    expect(world.begun).toEqual([]);
  });

  it.each([PENDING, DATA_OFFSET, DATA_SIZE])('has a slow read of %i waited for, and its call repeated', (at) => {
    const world = new World();
    world.learn('read', at);
    expect(thrownBy(() => world.read(at))).toMatchObject({
      code: 'ERR_NO_DATA_YET',
      underWay: true,
      readiness: { events: POLLIN },
    });
    expect(world.begun).toMatchObject([{ call: 'read', position: 4096 + at }]);
    notYet(() => world.read(at));
    world.ends(noise(8, 1));
    expect(world.read(at)).toBeBytes(noise(8, 1));
    expect([world.begun.length, world.made]).toEqual([1, []]);
  });

  it('changes the state and moves data while everybody waits, however long that takes', () => {
    const world = new World();
    for (const at of [STATE, DATA]) for (const call of ['read', 'write'] as const) world.learn(call, at);
    world.read(STATE);
    world.write(STATE, noise(4));
    world.write(DATA, noise(8));
    expect(world.begun).toEqual([]);
  });

  it('asks a driver for nothing else while it is at something', () => {
    const world = new World();
    world.learn('read', PENDING);
    notYet(() => world.read(PENDING));
    notYet(() => world.read(STATE, 2n));
    notYet(() => world.port.write(REGION, STATE, noise(4)));
    expect(world.made).toEqual([]);
    world.ends(noise(8, 1));
    world.read(STATE, 2n);
    expect(world.made).toEqual(['read 0']);
    expect(world.read(PENDING, 1n), 'whose call it was').toBeBytes(noise(8, 1));
  });

  it('gives what was read to nobody but the call that asked, in its order, as often as that is repeated', () => {
    const world = new World();
    for (const at of [PENDING, DATA_OFFSET]) world.learn('read', at);
    notYet(() => world.read(PENDING));
    world.ends(noise(8, 1));
    expect(world.read(PENDING)).toBeBytes(noise(8, 1));
    notYet(() => world.read(DATA_OFFSET));
    world.ends(noise(8, 2));
    expect([world.read(PENDING), world.read(DATA_OFFSET)]).toBeBytes([noise(8, 1), noise(8, 2)]);
    notYet(() => world.read(PENDING)); // a second time, which is another question
    world.ends(noise(8, 3));
    expect([world.read(PENDING), world.read(DATA_OFFSET), world.read(PENDING)]).toBeBytes([
      noise(8, 1),
      noise(8, 2),
      noise(8, 3),
    ]);
    notYet(() => world.read(PENDING, 2n));
    expect(world.begun.length).toBe(4);
  });

  it.each(['a write', 'a reset'])('forgets what was read before %s', (what) => {
    const world = new World();
    world.learn('read', PENDING);
    notYet(() => world.read(PENDING));
    world.ends(noise(8, 1));
    world.read(STATE);
    if (what === 'a reset') world.port.reset();
    else world.write(STATE, noise(4));
    notYet(() => world.read(PENDING));
  });

  it('writes once what is written by the same call or another that repeats it, and again what is new', () => {
    const world = new World();
    const [one, other] = [noise(8, 1), noise(8, 2)];
    world.learn('write', DATA_SIZE);
    expect(world.write(DATA_SIZE, one)).toBe('EAGAIN');
    world.ends(one);
    world.caller = 2n;
    expect(world.write(DATA_SIZE, one)).toBe('OK');
    expect(world.begun.length).toBe(1);
    expect(world.write(DATA_SIZE, one)).toBe('EAGAIN');
    world.ends(one);
    expect(world.write(DATA_SIZE, other)).toBe('EAGAIN');
    expect(world.begun.map(({ bytes }) => bytes)).toBeBytes([one, one, other]);
  });

  it('tells the driver’s error, once', () => {
    const world = new World();
    world.learn('write', DATA_SIZE);
    expect(world.write(DATA_SIZE, noise(8))).toBe('EAGAIN');
    world.ends(noise(8), -28);
    expect(world.write(DATA_SIZE, noise(8))).toBe('ENOSPC');
    expect(world.write(DATA_SIZE, noise(8))).toBe('EAGAIN');
  });

  it('begins nothing for what has time, and waits itself for who cannot', () => {
    const world = new World();
    world.learn('read', PENDING);
    notYet(() => world.read(PENDING, 'ahead'));
    expect(world.begun).toEqual([]);
    notYet(() => world.read(PENDING, 1n));
    notYet(() => world.read(PENDING, 'ahead'));
    world.ends(noise(8, 1));
    world.caller = undefined;
    world.read(PENDING);
    expect([world.made, world.begun.length]).toEqual([['read 8'], 1]);
    expect(world.read(PENDING, 1n)).toBeBytes(noise(8, 1));
  });

  it('does not count what it takes to start the thread', () => {
    const world = new World();
    world.learn('read', PENDING);
    notYet(() => world.read(PENDING));
    world.now += 5000;
    world.ends(noise(8, 1));
    world.read(PENDING);
    notYet(() => world.read(PENDING));
    expect(world.begun.length).toBe(2);
  });

  it('finds out when the thread is not worth what it costs, and tries again later', () => {
    const world = new World();
    world.learn('read', PENDING, 1);
    const threaded: boolean[] = [];
    for (let n = 1n; n <= 100n; n += 1n) {
      const { length } = world.begun;
      world.takes = 1;
      try {
        world.read(PENDING, n);
      } catch {
        world.now += 5; // on a machine where threads take long to wake
        world.ends(noise(8), 8, 1);
        world.read(PENDING, n);
      }
      threaded.push(world.begun.length > length);
    }
    const share = (tries: readonly boolean[]): number => tries.filter(Boolean).length / tries.length;
    expect(threaded[0]).toBe(true);
    expect(share(threaded)).toBeLessThan(0.2);
    expect(share(threaded.slice(50)), 'later').toBeGreaterThan(0);
  });
});
