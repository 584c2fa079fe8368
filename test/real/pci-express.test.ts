import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readRecording } from '../../src/recording/reader.ts';
import { migrateLive } from '../../src/vmm/migration.ts';
import { migrationProperties, VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import { quitAndReport, startShimmedVm, type ShimOptions } from '../../tools/vmm/shim.ts';
import { patient } from '../support/patience.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';

const TIMEOUT = patient(90_000);

/** A guest's way to the configuration space of a function, 32 bits at a time. */
interface Access {
  read(at: number): Promise<number>;
  write(at: number, value: number): Promise<void>;
}

const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;

/** By ports: what is behind the first 256 bytes cannot be reached (PCI Local Bus Specification 3.0: 3.2.2.3.2). */
function byPorts({ memory }: Vm, slot: number): Access {
  const select = (at: number): Promise<void> => memory.outl(CONFIG_ADDRESS, 0x8000_0000 + slot * 0x800 + at);
  return {
    read: async (at) => {
      await select(at);
      const bytes = [];
      for (let n = 0; n < 4; n += 1) bytes.push(await memory.inb(CONFIG_DATA + n));
      return Buffer.from(bytes).readUInt32LE();
    },
    write: async (at, value) => {
      await select(at);
      await memory.outl(CONFIG_DATA, value);
    },
  };
}

/** Where SeaBIOS puts the memory by which a guest of a q35 reaches all of it: a MiB for each bus, 32 KiB for each slot. */
const ECAM = 0xb000_0000;

function byMemory({ memory }: Vm, bus: number, slot: number): Access {
  const place = ECAM + bus * 2 ** 20 + slot * 2 ** 15;
  return { read: (at) => memory.readU32(place + at), write: (at, value) => memory.writeU32(place + at, value) };
}

const CAPABILITIES = 0x34;
const [PM, MSI, EXP, MSIX] = [0x01, 0x05, 0x10, 0x11];

/** The capabilities that a guest finds, in the order of the list: their IDs, and where they are. */
async function capabilities({ read }: Access): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  for (let at = (await read(CAPABILITIES)) & 0xff; at !== 0 && found.size < 48;) {
    const head = await read(at);
    found.set(head & 0xff, at);
    at = (head >> 8) & 0xff;
  }
  return found;
}

const EXPECTED = new Map([
  [PM, 0x40],
  [MSI, 0x48],
  [MSIX, 0x60],
  [EXP, 0x6c],
]);
const DEVCTL = 0x74;
const FLR = 0x8000;
const PM_CTRL = 0x44;
const D0 = 0;
const D3HOT = 3;
const BAR0 = 0x10;
const BAR2 = 0x18;
/** Of the root port: the bus below it, and BRIDGE_CONTROL with a bit that resets that bus (linux/pci_regs.h: PCI_BRIDGE_CTL_BUS_RESET). */
const PORT = 3;
const BUS = 1;
const BRIDGE_CONTROL = 0x3c;
const BUS_RESET = 0x0040_0000;

describeWithQemus(['7.2', '10.0'], 'a device with the capabilities of PCI Express', () => {
  const bed = useTestBed();

  /** A VM of machine q35 with the device below a root port of PCI Express: alone on the first bus behind the host's. */
  function startQ35(qemu: QemuVersion, name: string, spec: string, options: ShimOptions = {}): Promise<Vm> {
    const directory = `${bed().path(`${name}.sysfs`)}/0000:90:00.0`;
    const device = [`vfio-pci,sysfsdev=${directory}`, ...migrationProperties(qemu), 'id=vfio0,bus=port0'].join();
    const args = ['-device', `pcie-root-port,id=port0,chassis=1,addr=${PORT}`, '-device', device];
    const run = ['--record', bed().path(`${name}.recording`), ...(options.run ?? [])];
    return startShimmedVm(bed(), name, [{ spec }], { qemu, vfio: [], args, machine: 'pc-q35-7.2', ...options, run });
  }

  /** What was asked that has to do with resets, by the recording of a VM that has ended: `reset` by a request, or by a `write` to config space. */
  function resets(name: string): string[] {
    const lines = [...readRecording([readFileSync(bed().path(`${name}.recording`))])];
    return lines.flatMap((line) => {
      if (line.kind !== 'access') return [];
      const { call } = line;
      if (call.call === 'reset') return [line.result === 0 ? 'reset' : 'write'];
      const request = call.call === 'ioctl' ? (call.request ?? '') : '';
      return request.includes('PCI_HOT_RESET') ? [`${request}: ${line.errno ?? 'OK'}`] : [];
    });
  }

  describe.each(['7.2', '10.0'] as const)('in QEMU %s', (qemu) => {
    it('shows them to a guest on a conventional bus', { timeout: TIMEOUT }, async () => {
      const vm = await startShimmedVm(bed(), 'vm', [{ spec: 'qat,size=64K,config=4096' }], { qemu });
      await vm.waitForFirmware();
      await vm.stop(); // the firmware uses the ports too
      expect(await capabilities(byPorts(vm, VFIO_SLOT))).toEqual(EXPECTED);
      expect((await vm.bar(VFIO_SLOT, 2)).size).toBe(4096);
      await quitAndReport(vm);
    });

    it('shows them to a guest below a root port, extended ones too', { timeout: TIMEOUT }, async () => {
      const vm = await startQ35(qemu, 'vm', 'qat,size=64K,config=4096');
      await vm.waitForFirmware();
      const access = byMemory(vm, BUS, 0);
      expect(await access.read(0)).toBe(0x4941_8086);
      expect(await capabilities(access)).toEqual(EXPECTED);
      expect([await access.read(0x100), await access.read(0x104), await access.read(0x108)]).toEqual([
        0x0001_0003, 0xff00_4941, 0x0080_86ff,
      ]);
      const bar = (await access.read(BAR2)) & ~0xfff;
      expect(bar).not.toBe(0);
      const place = (bar >>> 0) + 0x400; // neither the table nor the pending bits, which are QEMU's
      await vm.memory.writeU32(place, 0x1234_5678);
      expect(await vm.memory.readU32(place)).toBe(0);
      await quitAndReport(vm);
    });

    it('has no extended ones without extended config space', { timeout: TIMEOUT }, async () => {
      const vm = await startQ35(qemu, 'vm', 'qat,size=64K');
      await vm.waitForFirmware();
      const access = byMemory(vm, BUS, 0);
      expect(await capabilities(access)).toEqual(EXPECTED);
      expect([0, 0xffff_ffff]).toContain(await access.read(0x100));
      await quitAndReport(vm);
    });

    /** Resets the bus below the port, as a guest does that holds its bit for a while. */
    async function resetBus(vm: Vm): Promise<void> {
      const port = byMemory(vm, 0, PORT);
      const control = await port.read(BRIDGE_CONTROL);
      await port.write(BRIDGE_CONTROL, control | BUS_RESET);
      await port.write(BRIDGE_CONTROL, control);
    }

    it('is reset by its guest: by FLR, and with its bus', { timeout: TIMEOUT }, async () => {
      const vm = await startQ35(qemu, 'vm', 'qat,size=64K,config=4096');
      await vm.waitForFirmware();
      const device = byMemory(vm, BUS, 0);
      await device.write(PM_CTRL, D3HOT);
      await device.write(PM_CTRL, D0); // which resets nothing
      await device.write(DEVCTL, FLR | 0x2810);
      expect((await device.read(DEVCTL)) & 0xffff).toBe(0x2810);
      await resetBus(vm);
      await quitAndReport(vm);
      // by QEMU, when the machine begins; by the write; by QEMU again, with the bus
      expect(resets('vm')).toEqual(['reset', 'write', 'reset']);
    });

    it('with reset-method=pm is reset on the way to D0, and by its bus', { timeout: TIMEOUT }, async () => {
      const vm = await startQ35(qemu, 'vm', 'qat,size=64K,reset-method=pm');
      await vm.waitForFirmware();
      const device = byMemory(vm, BUS, 0);
      await device.write(DEVCTL, FLR | 0x2810); // which resets nothing
      await device.write(PM_CTRL, D3HOT);
      await device.write(PM_CTRL, D0);
      await resetBus(vm);
      await quitAndReport(vm);
      // QEMU asks what else is on the bus, once without room for the answer; when the machine begins it does so for all devices before, too
      const info = ['ENOSPC', 'OK'].map((errno) => `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: ${errno}`);
      expect(resets('vm')).toEqual([...info, ...info, 'reset', 'write', ...info, 'reset']);
    });

    it.each(['qat,size=64K,config=4096', 'qat,size=64K,reset-method=pm'])(
      'migrates below a root port: %s',
      { timeout: TIMEOUT },
      async (spec) => {
        const source = await startQ35(qemu, 'source', `${spec},seed=3`);
        const destination = await startQ35(qemu, 'destination', spec, { incoming: true });
        await source.waitForFirmware();
        const bar = (await byMemory(source, BUS, 0).read(BAR0)) >>> 0;
        const mark = Buffer.from('what the guest wrote');
        await source.memory.write(bar + 0x8000, mark);
        await migrateLive(source, destination, bed().path('migration'));
        await destination.waitForStatus('running');
        await destination.waitForTicks();
        expect(await capabilities(byMemory(destination, BUS, 0))).toEqual(EXPECTED);
        expect((await byMemory(destination, BUS, 0).read(BAR0)) >>> 0).toBe(bar);
        expect(await destination.memory.read(bar + 0x8000, mark.length)).toEqual(mark);
        const [to, from] = [await quitAndReport(destination), await quitAndReport(source)];
        expect(to.sha256).toBe(from.sha256);
      },
    );
  });
});
