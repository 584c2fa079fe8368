import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DIRTY_PAGES,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_DMA_WRITE,
  vfio_user_bitmap,
  vfio_user_bitmap_range,
  vfio_user_dirty_pages,
  vfio_user_dma_logging_report,
  vfio_user_dma_unmap,
} from '../../src/abi/vfio-user.ts';
import { planServed } from '../../src/cli/serve.ts';
import { dma_record } from '../../src/sim/dma.ts';
import { SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import { EmulatedService } from '../../src/vfio-user/emulated/emulated-service.ts';
import { Client } from '../../src/vfio-user/server/client.ts';
import { Connection } from '../../src/vfio-user/wire/connection.ts';
import { closeFds, type Message } from '../../src/vfio-user/wire/message.ts';
import { decodeVersion, encodeVersion } from '../../src/vfio-user/wire/version.ts';
import { AskedMemory, commands, PAGE, requestOf, type Command } from '../support/main-loop-client.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../support/runs.ts';

/*
 * A device that is served in this thread, and a client that answers what it is asked whenever it likes: before, while or after it asks
 * something itself.
 */

const FROM = { at: 0x10_0000, size: 2 * PAGE };
const TO = { at: 0x10_4000, size: 3 * PAGE };
const place = ({ at, size }: typeof FROM): string => `0x${at.toString(16)}+${size}`;
const words = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);
const longs = (...values: number[]): Uint8Array => new Uint8Array(BigUint64Array.from(values.map(BigInt)).buffer);
const [GET, SET, STATE, LOGGING_START, REPORT] = [0x1_0000, 0x2_0000, 2, 6, 8];
const [STOP, RUNNING, MIGRATION] = [1, 2, 9];

const serviceOf = (driver: string, from = ''): EmulatedService =>
  new EmulatedService(planServed(`${driver},size=4K,dma=1000,dma-at=${place(TO)}${from}`), () => {});
const FROM_THERE = `,dma-from=${place(FROM)}`;
/** Devices of both protocols, that copy pages, and that write to them. */
const KINDS = [
  { protocol: 'v2', isCopying: true, service: serviceOf('qat', FROM_THERE) },
  { protocol: 'v2', isCopying: false, service: serviceOf('qat') },
  { protocol: 'v1', isCopying: true, service: serviceOf('vendor-v1', FROM_THERE) },
  { protocol: 'v1', isCopying: false, service: serviceOf('vendor-v1') },
] as const;
let now = 0;

/** What the client does. */
type Step =
  | { readonly kind: 'time'; readonly ms: number }
  | { readonly kind: 'carry out'; readonly fails: boolean }
  | { readonly kind: 'touch' | 'look' | 'report' }
  /** `waits`: for the answer; otherwise it wants none. */
  | { readonly kind: 'reset' | 'stop' | 'run' | 'master' | 'no master'; readonly waits: boolean }
  | { readonly kind: 'map' | 'unmap'; readonly what: 'from' | 'to'; readonly waits: boolean }
  /** Memory is away for a while. */
  | { readonly kind: 'away'; readonly what: 'from' | 'to'; readonly ms: number }
  /** Whatever kept the device from its DMA is over. */
  | { readonly kind: 'all' }
  /** It is, and the client carries out what is asked until something of that kind is open. */
  | { readonly kind: 'until'; readonly command: number };

const waits = fc.boolean();
const what = fc.constantFrom('from' as const, 'to' as const);
const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('time' as const), ms: fc.integer({ min: 1, max: 5 }) }) },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('carry out' as const),
        fails: fc.integer({ max: 9, min: 0 }).map((n) => n === 0),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constantFrom('touch' as const, 'look' as const, 'report' as const) }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constantFrom(
          'reset' as const,
          'stop' as const,
          'run' as const,
          'master' as const,
          'no master' as const,
        ),
        waits,
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('map' as const, 'unmap' as const), what, waits }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('away' as const), what, ms: fc.nat(9) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('all' as const) }) },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('until' as const),
        command: fc.constantFrom(VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE),
      }),
    },
  ),
  { minLength: 1, maxLength: 60, size: 'max' },
);

/** The client, the server's end of its socket, and what is known of both. */
class World {
  readonly #kind: (typeof KINDS)[number];
  readonly #server: Client;
  readonly #peer: Connection;
  readonly #memory = new AskedMemory(FROM, TO);
  /** Asked and not carried out. */
  readonly asked: Message[] = [];
  /** Carried out since a report told of the page. */
  readonly untold = new Set<number>();
  /** What is to be so once a command is carried out that was sent. */
  readonly #sent: (() => void)[] = [];
  readonly #isMapped = { from: false, to: false };
  readonly #willBeMapped = { from: false, to: false };
  #isRunning = true;
  #isMaster = false;
  #version = 0;
  #id = 0;
  writes = 0;

  constructor(kind: (typeof KINDS)[number], limit: number) {
    this.#kind = kind;
    const [ours, theirs] = socketPair(SOCK_STREAM);
    this.#server = new Client(new Connection(ours, { peer: 'the client', timeout: 20_000 }));
    this.#peer = new Connection(theirs, { peer: 'the server', timeout: 20_000 });
    const version = decodeVersion(encodeVersion(2, { max_data_xfer_size: limit }));
    kind.service.connect(this.#server, version);
    this.#server.version = version;
    this.#touch();
    if (this.#isV1) this.#ask([VFIO_USER_DIRTY_PAGES, vfio_user_dirty_pages.encode({ argsz: 8, flags: 1 })]);
    else this.#ask(commands.feature(SET | LOGGING_START, Buffer.concat([longs(PAGE), words(0, 0)])));
    this.do({ kind: 'all' });
  }

  get #isV1(): boolean {
    return this.#kind.protocol === 'v1';
  }

  get mayGo(): boolean {
    return this.#isRunning && this.#isMaster && this.#isMapped.to && (this.#isMapped.from || !this.#kind.isCopying);
  }

  #touch(): void {
    this.#version += 1;
    this.#memory.at(FROM.at, FROM.size)?.fill(this.#version & 0xff);
  }

  do(step: Step): void {
    switch (step.kind) {
      case 'time':
        now += step.ms;
        this.#turn();
        break;
      case 'carry out':
        this.#carryOut(step.fails);
        break;
      case 'touch':
        if (!this.mayGo) this.#touch(); // nobody reads it now
        break;
      case 'look':
        this.#ask([VFIO_USER_DEVICE_GET_INFO, words(24, 0, 0, 0, 0, 0)]);
        break;
      case 'report':
        this.#report();
        break;
      case 'reset':
        this.#command(commands.reset(), step.waits, () => (this.#isRunning = true));
        break;
      case 'stop':
      case 'run': {
        const isRunning = step.kind === 'run';
        const command = this.#isV1
          ? commands.write(MIGRATION, 0, words(isRunning ? 1 : 0))
          : commands.feature(SET | STATE, words(isRunning ? RUNNING : STOP, 0));
        this.#command(command, step.waits, () => (this.#isRunning = isRunning));
        break;
      }
      case 'master':
      case 'no master': {
        const isMaster = step.kind === 'master';
        this.#command(commands.setBusMaster(isMaster), step.waits, () => (this.#isMaster = isMaster));
        break;
      }
      case 'map':
      case 'unmap': {
        const isMapped = step.kind === 'map';
        if (this.#willBeMapped[step.what] === isMapped) return;
        this.#willBeMapped[step.what] = isMapped;
        const where = step.what === 'from' ? FROM : TO;
        if (this.#isV1 && !isMapped && step.what === 'to') {
          this.#unmapTelling(() => (this.#isMapped.to = false));
          break;
        }
        const command = isMapped ? commands.map(where, step.what === 'from' ? 1 : 2) : commands.unmap(where);
        this.#command(command, step.waits, () => (this.#isMapped[step.what] = isMapped));
        break;
      }
      case 'away':
        this.do({ kind: 'unmap', what: step.what, waits: true });
        this.do({ kind: 'time', ms: step.ms });
        this.do({ kind: 'time', ms: step.ms });
        this.do({ kind: 'touch' });
        this.do({ kind: 'map', what: step.what, waits: true });
        break;
      case 'all':
        for (const kind of ['run', 'master'] as const) this.do({ kind, waits: false });
        for (const each of ['from', 'to'] as const) this.do({ kind: 'map', what: each, waits: true });
        break;
      case 'until': {
        this.do({ kind: 'all' });
        const wanted = this.#kind.isCopying ? step.command : VFIO_USER_DMA_WRITE;
        for (let n = 0; n < 20 && this.asked[0]?.command !== wanted; n += 1) {
          this.do({ kind: 'carry out', fails: false });
          this.do({ kind: 'time', ms: 3 });
        }
        expect(this.asked[0]?.command).toBe(wanted);
      }
    }
  }

  #send([command, body]: Command, noReply: boolean, then: () => void): number {
    const id = (this.#id = (this.#id + 1) & 0xffff);
    this.#sent.push(then);
    this.#peer.send({ id, command, isReply: false, noReply, errno: undefined }, body);
    return id;
  }

  /** `then`: what is so once the server has carried the command out. */
  #command(command: Command, isWaiting: boolean, then: () => void): void {
    if (isWaiting) this.#ask(command, then);
    else this.#send(command, true, then);
  }

  /** Sends a command, which the server must answer whatever the client owes, and at once. */
  #ask(command: Command, then: () => void = () => {}): Uint8Array {
    const id = this.#send(command, false, then);
    const reply = this.#turn();
    expect([reply?.id, reply?.errno]).toEqual([id, undefined]);
    return reply?.body ?? command[1];
  }

  /** A turn of the server's loop, as serve() has them: the device works, and what has come is answered, up to what the client waits for. */
  #turn(): Message | undefined {
    this.#kind.service.work(now);
    expect(this.#receive()).toBeUndefined();
    for (let message = this.#server.next(); message !== undefined; message = this.#server.next()) {
      this.#kind.service.answer(this.#server, message);
      this.#sent.shift()?.();
      if (!message.noReply) break;
    }
    const { length } = this.asked;
    const reply = this.#receive();
    expect(this.asked).toHaveLength(length);
    return reply;
  }

  /** Takes what the server has sent: a reply is the last, and a request comes only if the device may go, and none is open. */
  #receive(): Message | undefined {
    for (let message = this.#peer.receive(); message !== undefined; message = this.#peer.receive()) {
      if (message.isReply) {
        expect(this.#peer.receive()).toBeUndefined();
        return message;
      }
      this.asked.push(message);
      expect([this.mayGo, this.asked.length]).toEqual([true, 1]);
      if (message.command === VFIO_USER_DMA_WRITE) this.#check(message);
    }
    return undefined;
  }

  /** No write has what was read before the source was touched. */
  #check(message: Message): void {
    const { at, data } = requestOf(message);
    if (!this.#kind.isCopying) return;
    const copied = at % PAGE === 0 ? data.subarray(dma_record.size) : data;
    expect(new Set(copied)).toEqual(new Set(copied.length === 0 ? [] : [this.#version & 0xff]));
  }

  #carryOut(fails: boolean): void {
    const message = this.asked.shift();
    if (message === undefined) return;
    const { isWrite, at, data, size } = requestOf(message);
    const bytes = this.#memory.at(at, size);
    if (isWrite && !fails) {
      bytes?.set(data);
      this.untold.add(at - (at % PAGE));
      this.writes += 1;
    }
    const errno = fails ? 'EFAULT' : undefined;
    const head = message.body.subarray(0, 16);
    const answer = isWrite ? head : Buffer.concat([head, bytes ?? data]);
    this.#peer.send(
      { id: message.id, command: message.command, isReply: true, noReply: false, errno },
      fails ? new Uint8Array(0) : answer,
    );
  }

  #report(): void {
    const range = { iova: BigInt(TO.at), size: BigInt(TO.size) };
    if (!this.#isV1) {
      const head = vfio_user_dma_logging_report.encode({
        iova: range.iova,
        length: range.size,
        page_size: BigInt(PAGE),
      });
      this.#told(() => this.#ask(commands.feature(GET | REPORT, head, head.length + 8)).subarray(8 + head.length));
    } else if (this.#isMapped.to) {
      const head = Buffer.concat([
        vfio_user_dirty_pages.encode({ argsz: 48, flags: 4 }),
        vfio_user_bitmap_range.encode({ ...range, bitmap_pgsize: BigInt(PAGE), bitmap_size: 8n }),
      ]);
      this.#told(() => this.#ask([VFIO_USER_DIRTY_PAGES, head]).subarray(head.length));
    }
  }

  /** DMA_UNMAP of v1 tells which pages were written to. */
  #unmapTelling(then: () => void): void {
    const head = Buffer.concat([
      vfio_user_dma_unmap.encode({ argsz: 48, flags: 1, addr: BigInt(TO.at), size: BigInt(TO.size) }),
      vfio_user_bitmap.encode({ pgsize: BigInt(PAGE), size: 8n }),
    ]);
    this.#told(() => this.#ask([VFIO_USER_DMA_UNMAP, head], then).subarray(head.length));
  }

  /** What had been written before is told of. */
  #told(bitmap: () => Uint8Array): void {
    const before = [...this.untold];
    const [bits = 0] = bitmap();
    for (const page of before) if ((bits & (1 << ((page - TO.at) / PAGE))) !== 0) this.untold.delete(page);
  }

  /** Whatever was before: what was written is told of, and the device goes on. */
  end(): void {
    this.do({ kind: 'stop', waits: true });
    while (this.asked.length > 0) this.do({ kind: 'carry out', fails: false });
    this.do({ kind: 'map', what: 'to', waits: true });
    this.do({ kind: 'report' });
    expect([...this.untold]).toEqual([]);
    this.do({ kind: 'all' });
    const { writes } = this;
    for (let n = 0; n < 60; n += 1) {
      this.do({ kind: 'time', ms: 3 });
      this.do({ kind: 'carry out', fails: false });
    }
    expect(this.writes).toBeGreaterThan(writes);
  }

  close(): void {
    this.#kind.service.disconnect();
    this.#server.close();
    this.#peer.close();
    for (const message of this.asked) closeFds(message);
  }
}

it(
  'a client is answered whenever it answers, and the device does no DMA that it may not do, and tells of all that it did',
  { timeout: PROPERTY_TIMEOUT },
  () => {
    fc.assert(
      fc.property(fc.nat(3), fc.constantFrom(1024 * 1024, 3000), steps, (kind, limit, all) => {
        const world = new World(KINDS[kind] ?? KINDS[0], limit);
        try {
          for (const step of all) world.do(step);
          world.end();
        } finally {
          world.close();
        }
      }),
      { numRuns: numRuns(300) },
    );
  },
);
