import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { existsSync } from 'node:fs';
import { ci, fetchQemu, isToBeFetched, missingQemu } from '../../tools/vmm/binaries.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import { MEMORY_MIB, VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import { DMA_MAGIC, DMA_PAGE, dma_record } from '../../src/sim/dma.ts';
import type { Child } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { BIOS_TICKS, type Vm } from '../../src/vmm/vm.ts';
import { makeBusMaster, readConfig, toggleBusMaster } from '../../tools/vmm/guest-ram.ts';
import { because } from '../support/host.ts';
import { useTestBed } from './bed.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(120_000);
const missing = isToBeFetched('newest') ? undefined : missingQemu('newest');

// QEMU is a client by itself: nothing of what `run` takes is needed
describe.skipIf(missing !== undefined && !ci)(`QEMU 11's vfio-user-pci${because(missing)}`, () => {
  const bed = useTestBed();
  let started: Child[] = [];
  beforeEach(() => (started = []));
  beforeAll(async () => {
    if (isToBeFetched('newest')) await fetchQemu('newest');
  }, patient(600_000));

  /** Starts our command, which listens at a path of the bed. */
  async function listening(name: string, args: readonly string[]): Promise<string> {
    const path = bed().path(name);
    started.push(bed().spawn([process.execPath, CLI, ...args, '--listen', path]));
    await poll(() => (existsSync(path) ? true : undefined), 30_000, `${name} to listen`);
    return path;
  }

  function startVm(path: string, memory = `memory-backend-memfd,share=on`): Promise<Vm> {
    const device = { driver: 'vfio-user-pci', id: 'device', addr: String(VFIO_SLOT), socket: { type: 'unix', path } };
    return bed().startVm('vm', {
      qemu: 'newest',
      machine: 'pc-i440fx-7.2,memory-backend=guest',
      args: ['-object', `${memory},id=guest,size=${MEMORY_MIB}M`, '-device', JSON.stringify(device)],
    });
  }

  async function expectToEnd(): Promise<void> {
    for (const { pid } of started) process.kill(Number(pid), 'SIGTERM');
    for (const child of started) expect(await child.exited, child.stderr).toEqual({ code: 0, signal: null });
  }

  it.each(['served', 'behind the proxy'])(
    'realizes a device that is %s, whose BAR the guest sees',
    { timeout: TIMEOUT },
    async (how) => {
      const served = await listening('device', ['serve', '--device', 'qat,size=1M,seed=3']);
      const path = how === 'served' ? served : await listening('proxy', ['proxy', '--connect', served]);
      const vm = await startVm(path);
      await vm.waitForFirmware();
      const bar = await vm.bar(VFIO_SLOT, 0);
      expect(bar.size).toBe(2 ** 20);
      const before = await vm.memory.read(bar.address, 4096);
      expect(before.every((byte) => byte === 0)).toBe(false);
      await vm.memory.write(bar.address, Buffer.from('written by the guest'));
      expect((await vm.memory.read(bar.address, 20)).toString()).toBe('written by the guest');
      await vm.quit();
      await expectToEnd();
      expect([served, path].filter((each) => existsSync(each))).toEqual([]);
    },
  );

  // QEMU's own memory has no file: it is asked for it by DMA_READ and DMA_WRITE
  it.each([
    ['served', 'memory-backend-memfd,share=on'],
    ['served', 'memory-backend-ram'],
    ['behind the proxy', 'memory-backend-ram'],
  ] as const)('has a device that is %s copy memory of the guest, in %s', { timeout: TIMEOUT }, async (how, memory) => {
    const [FROM, TO, PAGES] = [0x180_0000, 0x200_0000, 8] as const;
    const size = PAGES * DMA_PAGE;
    const spec = `qat,size=1M,dma=1000,dma-at=${TO}+${size},dma-from=${FROM}+${size}`;
    const served = await listening('device', ['serve', '--device', spec]);
    const path = how === 'served' ? served : await listening('proxy', ['proxy', '--connect', served]);
    const vm = await startVm(path, memory);
    await vm.waitForFirmware();
    const source = Uint8Array.from({ length: size }, (_, n) => n * 17 + (n >> 12));
    await vm.memory.write(FROM, source);
    await makeBusMaster(vm, VFIO_SLOT);
    /** Which pages are copies, by the number in their records. One may be read while it is written. */
    const copies = async (): Promise<boolean[]> => {
      const bytes = await vm.memory.read(TO, size);
      return Array.from({ length: PAGES }, (_, n) => {
        const page = bytes.subarray(n * DMA_PAGE, (n + 1) * DMA_PAGE);
        const { magic, iova, counter } = dma_record.decode(page);
        const from = (counter % PAGES) * DMA_PAGE;
        const wanted = source.subarray(from + dma_record.size, from + DMA_PAGE);
        return magic === DMA_MAGIC && iova === TO + n * DMA_PAGE && page.subarray(dma_record.size).equals(wanted);
      });
    };
    let found: boolean[] = [];
    const all = async (): Promise<true | undefined> => {
      found = await copies();
      return found.every((isCopy) => isCopy) ? true : undefined;
    };
    const said = (): string => started.map(({ stderr }) => stderr).join('');
    const copied = async (): Promise<void> => {
      await vm.memory.write(TO, new Uint8Array(size));
      await poll(all, 30_000, () => `all to be copies: ${found.join()}${vm.child.lastWords}\n${said()}`);
    };
    await copied();
    // QEMU waits for the answer to each of these, and meanwhile carries out nothing that it is asked
    const [revision, ...others] = await readConfig(vm, VFIO_SLOT, 8, 500);
    expect([revision, others]).toEqual([expect.any(Number), []]);
    await toggleBusMaster(vm, VFIO_SLOT, 100);
    await copied();
    for (let n = 0; n < 3; n += 1) {
      await vm.stop();
      await vm.memory.write(BIOS_TICKS, new Uint8Array(4)); // by which its firmware is seen to have begun anew
      await vm.qmp.execute('system_reset');
      await vm.cont();
      await vm.waitForFirmware();
      await makeBusMaster(vm, VFIO_SLOT);
      await copied();
    }
    expect(vm.child.stderr).not.toContain('timed out');
    expect(await vm.memory.read(FROM, size)).toBeBytes(source);
    expect(said()).not.toContain('cannot');
    await vm.quit();
    await expectToEnd();
  });
});
