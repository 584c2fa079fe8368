import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { VFIO_DEVICE_STATE } from '../../src/abi/vfio-v2.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { cleanBitmap, type DmaLog, type IovaRange } from '../../src/vfio/dma-log.ts';
import { dmaLogOf } from '../../src/vfio/client/port-dma-log.ts';
import { identify } from '../../src/vfio/client/identify.ts';
import type { VfioPort } from '../../src/vfio/port.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import { check } from '../guest/check.ts';
import { setBits, Type1 } from '../guest/type1.ts';
import { FAULT, PAGE, PortRegisters, V2Log } from '../guest/v2log.ts';

/** The log of DMA of a driver of the kernel, held against what the device was told to write. */

const PAGE_SIZE = BigInt(PAGE);
/** Two mappings, with a hole between them and another behind. */
const LOW: IovaRange = { iova: 0n, length: 4n << 20n };
const HIGH: IovaRange = { iova: 0x1000_0000n, length: 8n << 20n };

const pageOf = (iova: bigint): number => Number(iova / PAGE_SIZE);
const at = (page: number, pages = 1): { iova: number; pages: number } => ({ iova: page * PAGE, pages });

/** A device that nobody else uses, with both mappings, and the log that it offers. */
class Logged implements Disposable {
  readonly type1: Type1;
  readonly port: VfioPort;
  readonly log: DmaLog;
  readonly registers: PortRegisters;
  readonly low: Uint8Array;
  readonly high: Uint8Array;

  constructor() {
    this.type1 = new Type1(new V2Log());
    const [port] = this.type1.ports;
    assert.ok(port);
    const log = dmaLogOf(port);
    assert.ok(log, 'the driver offers a log');
    [this.port, this.log, this.registers] = [port, log, new PortRegisters(port)];
    [this.low, this.high] = [this.type1.map(LOW), this.type1.map(HIGH)];
  }

  /** The pages of a range that a REPORT tells, by their numbers. */
  report(range: IovaRange, pageSize = PAGE_SIZE): number[] {
    const bitmap = cleanBitmap(range, pageSize);
    this.log.readAndClear(range, bitmap);
    return setBits(bitmap.bits).map((bit) => Number(range.iova / pageSize) + bit);
  }

  [Symbol.dispose](): void {
    this.type1[Symbol.dispose]();
  }
}

const first = pageOf(HIGH.iova);
const written = [first, first + 1, first + 63, first + 64, first + 700, pageOf(HIGH.iova + HIGH.length) - 1];

await check('a REPORT tells the pages that were written to, each once, and no other', async () => {
  using device = new Logged();
  assert.equal(device.log.start([LOW, HIGH], PAGE_SIZE), PAGE_SIZE);
  assert.deepEqual(device.report(HIGH), []);
  for (const page of written) await device.registers.writePages(at(page), page + 7);
  await device.registers.writePages(at(3, 2), 9);
  assert.deepEqual(device.report(HIGH), written);
  assert.deepEqual(device.report(LOW), [3, 4]);
  assert.deepEqual([device.report(LOW), device.report(HIGH)], [[], []]);
  for (const page of written) {
    const bytes = Buffer.from(device.high).subarray((page - first) * PAGE);
    assert.deepEqual([bytes.readBigUInt64LE(0), bytes.readBigUInt64LE(8)], [BigInt(page), BigInt(page + 7)]);
  }
  device.log.stop();
});

await check('probe says that the log works, and leaves it ended', () => {
  const { group, uuid } = new V2Log();
  for (let time = 0; time < 2; time += 1) {
    const line = [CLI, 'probe', `vfio:${group}:${uuid}`, '--json'];
    const found = JSON.parse(execFileSync(process.execPath, line, { encoding: 'utf8' })) as object;
    assert.deepEqual({ ...found, dmaLogging: 'works', state: 'RUNNING' }, found);
  }
});

await check('only what START covers is logged', async () => {
  using device = new Logged();
  device.log.start([{ iova: HIGH.iova, length: 64n * PAGE_SIZE }], PAGE_SIZE);
  await device.registers.writePages(at(first + 62, 4), 1);
  await device.registers.writePages(at(5), 1);
  assert.deepEqual([device.report(LOW), device.report(HIGH)], [[], [first + 62, first + 63]]);
});

await check('a REPORT of a part leaves the rest, and sets bits without clearing any', async () => {
  using device = new Logged();
  device.log.start([HIGH], PAGE_SIZE);
  for (const page of written) await device.registers.writePages(at(page), 1);
  const part = { iova: HIGH.iova + 64n * PAGE_SIZE, length: 128n * PAGE_SIZE };
  const bitmap = cleanBitmap(part, PAGE_SIZE);
  bitmap.bits.fill(0x80, 8);
  device.log.readAndClear(part, bitmap);
  const kept = Array.from({ length: 8 }, (_, byte) => 64 + byte * 8 + 7);
  assert.deepEqual(setBits(bitmap.bits), [0, ...kept]);
  assert.deepEqual(
    device.report(HIGH),
    written.filter((page) => page !== first + 64),
  );
});

await check('a REPORT in larger pages than START was told', async () => {
  using device = new Logged();
  assert.equal(device.log.start([HIGH], PAGE_SIZE), PAGE_SIZE);
  await device.registers.writePages(at(first + 5, 3), 1);
  await device.registers.writePages(at(first + 100), 1);
  assert.deepEqual(device.report(HIGH, 65_536n), [first / 16, first / 16 + 6]);
});

await check('type 1 calls pinned memory dirty at each look, and the log does not', async () => {
  using device = new Logged();
  const all = Array.from({ length: pageOf(LOW.length) }, (_, page) => page);
  await device.registers.pin(at(0, all.length));
  assert.equal(await device.registers.pinned(), all.length);
  device.type1.track(true);
  device.log.start([LOW, HIGH], PAGE_SIZE);
  await device.registers.writePages(at(3), 1);
  await device.registers.writePages(at(first + 9), 1);
  for (const high of [[9], [], []]) {
    assert.deepEqual(setBits(device.type1.dirty(LOW)), all);
    assert.deepEqual(setBits(device.type1.dirty(HIGH)), high);
  }
  assert.deepEqual([device.report(LOW), device.report(HIGH)], [[3], [first + 9]]);
  device.type1.track(false);
  device.type1.unmap(LOW);
  assert.equal(await device.registers.pinned(), 0);
});

await check('what the driver refuses: START twice, and a REPORT when it does not log', () => {
  using device = new Logged();
  const refused = { errno: 'EINVAL' };
  assert.throws(() => device.report(HIGH), refused);
  device.log.start([HIGH], PAGE_SIZE);
  assert.throws(() => device.log.start([HIGH], PAGE_SIZE), refused);
  assert.deepEqual(device.report(HIGH), []);
  device.log.stop();
  assert.throws(() => device.report(HIGH), refused);
  device.log.start([HIGH], PAGE_SIZE);
});

await check('what goes wrong on purpose: START refused, the log lost, a page forgotten', async () => {
  using device = new Logged();
  const { registers, log } = device;
  await registers.setFaults(FAULT.START_EOPNOTSUPP);
  assert.throws(() => log.start([HIGH], PAGE_SIZE), { errno: 'EOPNOTSUPP' });
  await registers.setFaults(FAULT.START_E2BIG);
  assert.throws(() => log.start([HIGH], PAGE_SIZE), { errno: 'E2BIG' });
  await registers.setFaults(FAULT.REPORT_ONCE);
  log.start([HIGH], PAGE_SIZE);
  await registers.writePages(at(first, 3), 1);
  assert.throws(() => device.report(HIGH), { errno: 'EIO' });
  assert.deepEqual(device.report(HIGH), []);
  await registers.setFaults(FAULT.DROP);
  await registers.writePages(at(first, 3), 2);
  assert.deepEqual(device.report(HIGH), [first + 1, first + 2]);
  assert.deepEqual([await registers.dropped(), await registers.logged()], [1, 0]);
  await registers.setFaults(FAULT.REPORT);
  for (let time = 0; time < 2; time += 1) assert.throws(() => device.report(HIGH), { errno: 'EIO' });
});

const RATE = 2000;

/** Waits until a device's writer has written some more pages. */
async function waitForPages({ registers }: Logged, count = 100): Promise<void> {
  const until = (await registers.counter()) + count;
  await poll(
    async () => ((await registers.counter()) >= until ? true : undefined),
    20_000,
    `the writer to write ${count} pages`,
  );
}

await check('the background writer writes in RUNNING and PRE_COPY, and in no other state', async () => {
  using device = new Logged();
  using other = new Logged(); // whose writer tells that there was time to write
  for (const { registers } of [device, other]) await registers.startWriter(at(first, 500), RATE);
  const { device: v2 } = identify(device.port) as Extract<ReturnType<typeof identify>, { protocol: 'v2' }>;
  const path: readonly (readonly [keyof typeof VFIO_DEVICE_STATE, boolean])[] = [
    ['RUNNING', true],
    ['RUNNING_P2P', false],
    ['RUNNING', true],
    ['PRE_COPY', true],
    ['PRE_COPY_P2P', false],
    ['PRE_COPY', true],
    ['STOP_COPY', false],
    ['STOP', false],
    ['RUNNING', true],
  ];
  for (const [state, writes] of path) {
    if (v2.getState() !== VFIO_DEVICE_STATE[state]) v2.setState(VFIO_DEVICE_STATE[state]);
    const before = await device.registers.counter();
    await (writes ? waitForPages(device) : waitForPages(other));
    if (!writes) assert.equal(await device.registers.counter(), before, state);
    const ordered = device.registers.writePages(at(0), 1);
    await (writes ? ordered : assert.rejects(ordered, /-16$/));
  }
});

await check(
  'its state goes to another device: the memory, the counter, what is pinned, and the writer goes on',
  async () => {
    using from = new Logged();
    using to = new Logged();
    const [source, target] = [from, to].map(({ port }) => {
      const found = identify(port);
      assert.ok(found.protocol === 'v2');
      return found.device;
    });
    assert.ok(source && target);
    await from.registers.pin(at(first + 1, 300));
    await from.registers.startWriter(at(first, 500), RATE);
    await waitForPages(from);
    const pieces: Buffer[] = [];
    const saving = new V2Save(source, (piece) => void pieces.push(Buffer.from(piece)));
    saving.setup();
    while (saving.iterate() > 0);
    saving.complete();
    const restoring = new V2Restore(target);
    restoring.setup();
    restoring.load(Buffer.concat(pieces));
    const counter = await from.registers.counter();
    assert.ok(counter >= 100);
    assert.equal(await to.registers.counter(), 0);
    restoring.complete();
    assert.ok((await to.registers.counter()) >= counter);
    assert.equal(await to.registers.pinned(), 300);
    await waitForPages(to);
    assert.equal(await from.registers.counter(), counter);
  },
);
