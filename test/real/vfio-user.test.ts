import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { existsSync } from 'node:fs';
import { ci, fetchQemu, isToBeFetched, missingQemu } from '../../tools/vmm/binaries.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import { MEMORY_MIB, VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Child } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import type { Vm } from '../../src/vmm/vm.ts';
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

  function startVm(path: string): Promise<Vm> {
    const device = { driver: 'vfio-user-pci', id: 'device', addr: String(VFIO_SLOT), socket: { type: 'unix', path } };
    return bed().startVm('vm', {
      qemu: 'newest',
      machine: 'pc-i440fx-7.2,memory-backend=guest',
      args: [
        '-object',
        `memory-backend-memfd,id=guest,size=${MEMORY_MIB}M,share=on`,
        '-device',
        JSON.stringify(device),
      ],
    });
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
      for (const { pid } of started) process.kill(Number(pid), 'SIGTERM');
      for (const child of started) expect(await child.exited, child.stderr).toEqual({ code: 0, signal: null });
      expect([served, path].filter((each) => existsSync(each))).toEqual([]);
    },
  );
});
