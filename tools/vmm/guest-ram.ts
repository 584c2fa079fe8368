import { readFileSync, rmSync } from 'node:fs';
import { DMA_MAGIC, DMA_PAGE, dma_record } from '../../src/sim/dma.ts';
import { MEMORY_MIB } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { TestBed } from './test-bed.ts';

/** What a PC has as memory, without what lies between: VGA, ROMs, and pages that firmware maps as it likes. */
const PARTS = [
  { at: 0, end: 640 * 1024 },
  { at: 1024 * 1024, end: MEMORY_MIB * 1024 * 1024 },
] as const;

/** A stopped guest's memory, by where its parts begin. */
export type GuestRam = ReadonlyMap<number, Uint8Array>;

/** Has QEMU save the memory of a stopped guest, part by part. */
export async function guestRam(bed: TestBed, vm: Vm): Promise<GuestRam> {
  const parts = new Map<number, Uint8Array>();
  for (const { at, end } of PARTS) {
    const filename = bed.path(`${vm.name}.${at}.ram`);
    await vm.qmp.execute('pmemsave', { val: at, size: end - at, filename });
    parts.set(at, readFileSync(filename));
    rmSync(filename);
  }
  return parts;
}

/** A page that a device wrote to, by what it holds. */
export interface WrittenPage {
  readonly iova: number;
  readonly counter: number;
  readonly device: number;
}

/** The pages in a guest's memory that hold a record of DMA, which must name the page that it is in. */
export function writtenPages(ram: GuestRam): WrittenPage[] {
  const found: WrittenPage[] = [];
  for (const [begin, bytes] of ram) {
    for (let at = 0; at < bytes.length; at += DMA_PAGE) {
      const { magic, iova, counter, device } = dma_record.decode(bytes, at);
      if (magic !== DMA_MAGIC) continue;
      if (iova !== begin + at) throw new Error(`the page at ${begin + at} holds the record of ${iova}`);
      found.push({ iova, counter, device });
    }
  }
  return found;
}

/** The addresses of pages in which two guests' memories differ. */
export function differingPages(one: GuestRam, other: GuestRam): number[] {
  return Array.from(one).flatMap(([begin, bytes]) => {
    const theirs = other.get(begin) ?? new Uint8Array(0);
    const pages = Array.from({ length: Math.ceil(bytes.length / DMA_PAGE) }, (_, n) => n * DMA_PAGE);
    const page = (of: Uint8Array, at: number): Uint8Array => of.subarray(at, at + DMA_PAGE);
    return pages.filter((at) => Buffer.compare(page(bytes, at), page(theirs, at)) !== 0).map((at) => begin + at);
  });
}

/** COMMAND of config space: its offset, the bits I/O and memory, and with them bus master (linux/pci_regs.h). */
const COMMAND = { at: 4, decodes: 3, all: 7 } as const;

/** Lets a device of a running VM do DMA, by ports as a guest's driver would; the firmware does not. */
export async function makeBusMaster(vm: Vm, slot: number): Promise<void> {
  await withConfig(vm, slot, COMMAND.at, () => writePort(vm, 0xcfc, COMMAND.all));
}

/** Keeps a device from DMA and lets it do some again, so many times, while the guest does nothing. */
export async function toggleBusMaster(vm: Vm, slot: number, times: number): Promise<void> {
  await withConfig(vm, slot, COMMAND.at, async () => {
    for (let n = 0; n < times; n += 1)
      for (const bits of [COMMAND.decodes, COMMAND.all]) await writePort(vm, 0xcfc, bits);
  });
}

/** Reads four bytes of a device's config space so many times, by ports, while the guest does nothing. Returns what was read. */
export async function readConfig(vm: Vm, slot: number, at: number, times: number): Promise<ReadonlySet<number>> {
  const found = new Set<number>();
  await withConfig(vm, slot, at, async () => {
    for (let n = 0; n < times; n += 1) found.add(await readPort(vm, 0xcfc));
  });
  return found;
}

/** Does something while the port of config space is that of a device. */
async function withConfig(vm: Vm, slot: number, at: number, act: () => Promise<void>): Promise<void> {
  await vm.stop(); // the firmware may be about to use the ports, and finds them as it left them
  const before = await readPort(vm, 0xcf8);
  await writePort(vm, 0xcf8, 0x8000_0000 + slot * 0x800 + at);
  await act();
  await writePort(vm, 0xcf8, before);
  await vm.cont();
}

async function writePort(vm: Vm, port: number, value: number): Promise<void> {
  const answer = await monitor(vm, `o /w 0x${port.toString(16)} 0x${value.toString(16)}`);
  if (answer !== '') throw new Error(`QEMU's monitor says of a port: ${answer}`);
}

async function readPort(vm: Vm, port: number): Promise<number> {
  const said = await monitor(vm, `i /w 0x${port.toString(16)}`);
  const [, value] = /= (0x[0-9a-f]{8})\s*$/.exec(said) ?? [];
  if (value === undefined) throw new Error(`QEMU's monitor says of a port: ${said}`);
  return Number(value);
}

function monitor(vm: Vm, line: string): Promise<string> {
  return vm.qmp.execute<string>('human-monitor-command', { 'command-line': line });
}
