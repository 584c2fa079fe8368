import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { VFIO_DMA_MAP_FLAG_READ } from '../../src/abi/vfio-iommu.ts';
import type { IovaRange } from '../../src/vfio/dma-log.ts';
import { check } from '../guest/check.ts';
import { setBits, Type1, type GroupedDevice } from '../guest/type1.ts';
import { PAGE, PortRegisters, V2Log } from '../guest/v2log.ts';

/** What type 1 says of memory that a device behind an IOMMU may write to: QEMU's `edu` behind its `intel-iommu`. */

const PCI = '/sys/bus/pci';
const EDU = { vendor: '0x1234', device: '0x11e8' };

/** Binds `edu` to vfio-pci. */
function edu(): GroupedDevice {
  const isEdu = (address: string): boolean =>
    Object.entries(EDU).every(
      ([name, id]) => readFileSync(join(PCI, 'devices', address, name), 'latin1').trim() === id,
    );
  const uuid = readdirSync(join(PCI, 'devices')).find(isEdu);
  assert.ok(uuid, 'the guest has an edu');
  const sysfs = join(PCI, 'devices', uuid);
  if (!existsSync(join(sysfs, 'driver'))) {
    writeFileSync(join(PCI, 'drivers/vfio-pci/new_id'), `${EDU.vendor.slice(2)} ${EDU.device.slice(2)}`);
  }
  return { group: `/dev/vfio/${basename(readlinkSync(join(sysfs, 'iommu_group')))}`, uuid };
}

const MiB = 1n << 20n;
const LOW: IovaRange = { iova: 0n, length: 640n << 10n };
const ROM: IovaRange = { iova: 0xc_0000n, length: 128n << 10n };
const RAM: IovaRange = { iova: MiB, length: 31n * MiB };
const FAR: IovaRange = { iova: 64n << 30n, length: 16n * MiB };
const MAPPED = [LOW, ROM, RAM, FAR];

const pagesOf = ({ length }: IovaRange): number => Number(length) / PAGE;

function mapAll(type1: Type1): void {
  for (const range of MAPPED) type1.map(range, range === ROM ? VFIO_DMA_MAP_FLAG_READ : undefined);
}

const everyPage = (range: IovaRange): number[] => Array.from({ length: pagesOf(range) }, (_, page) => page);

/** The runs of bits that are set, as ranges. A large bitmap with little in it takes little time. */
function rangesIn(bits: Uint8Array): IovaRange[] {
  const CHUNK = 64 * 1024;
  const nothing = Buffer.alloc(CHUNK);
  const ranges: { iova: bigint; length: bigint }[] = [];
  for (let begin = 0; begin < bits.length; begin += CHUNK) {
    const chunk = bits.subarray(begin, begin + CHUNK);
    if (nothing.equals(chunk)) continue;
    for (const bit of setBits(chunk)) {
      const iova = BigInt(begin * 8 + bit) * BigInt(PAGE);
      const last = ranges.at(-1);
      if (last !== undefined && last.iova + last.length === iova) last.length += BigInt(PAGE);
      else ranges.push({ iova, length: BigInt(PAGE) });
    }
  }
  return ranges;
}

await check('all that is mapped is dirty at each look, read-only memory too', () => {
  using type1 = new Type1(edu());
  mapAll(type1);
  type1.track(true);
  for (const range of [...MAPPED, ...MAPPED]) assert.deepEqual(setBits(type1.dirty(range)), everyPage(range));
  const later: IovaRange = { iova: 128n << 30n, length: 4n * MiB };
  type1.map(later);
  assert.deepEqual(setBits(type1.dirty(later)), everyPage(later));
});

await check('one look at 4 TiB tells the ranges that are mapped, and no other', () => {
  using type1 = new Type1(edu());
  mapAll(type1);
  type1.track(true);
  const all: IovaRange = { iova: 0n, length: 4n << 40n };
  assert.deepEqual(rangesIn(type1.dirty(all)), MAPPED);
  type1.unmap(FAR);
  assert.deepEqual(rangesIn(type1.dirty(all)), [LOW, ROM, RAM]);
});

await check('a look that cuts a mapping, and one before tracking begins, are refused', () => {
  using type1 = new Type1(edu());
  mapAll(type1);
  const refused = { errno: 'EINVAL' };
  assert.throws(() => type1.dirty(RAM), refused);
  type1.track(true);
  assert.throws(() => type1.dirty({ ...RAM, length: MiB }), refused);
  assert.throws(() => type1.dirty({ iova: RAM.iova + MiB, length: RAM.length - MiB }), refused);
  assert.deepEqual(setBits(type1.dirty({ iova: 0x4000_0000n, length: MiB })), []);
  type1.track(false);
  assert.throws(() => type1.dirty(RAM), refused);
});

await check('beside hardware, what a mediated device writes to is no more dirty than the rest', async () => {
  using type1 = new Type1(edu(), new V2Log());
  mapAll(type1);
  type1.track(true);
  const [, port] = type1.ports;
  assert.ok(port);
  const registers = new PortRegisters(port);
  await registers.pin({ iova: Number(RAM.iova), pages: 16 });
  await registers.writePages({ iova: Number(RAM.iova), pages: 1 }, 1);
  for (const range of MAPPED) assert.deepEqual(setBits(type1.dirty(range)), everyPage(range));
});
