import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { connectWhenReady } from '../../src/vmm/connect.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { readLines } from '../../src/vmm/lines.ts';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { cpio } from '../image/cpio.ts';
import { underShim } from './vm.ts';

/** Where the kernel of Debian and its initramfs are (host/namespaces.ts). */
const LINUX = '/run/linux';
export const DEVICE = `/sys/bus/pci/devices/0000:00:0${VFIO_SLOT}.0`;

/**
 * The first program: it loads the driver that is tried, which a list of modules names, and then does what comes by the first serial port, where
 * the answers go. The kernel's messages have the second.
 */
const INIT = `#!/bin/sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mkdir /tmp
busybox mount -t tmpfs tmpfs /tmp
busybox stty -F /dev/ttyS0 -echo
exec </dev/ttyS0 >/dev/ttyS0 2>&1
for word in $(busybox cat /proc/cmdline); do
  case $word in intx=*) busybox insmod "/modules/$(busybox grep /bell.ko /modules/stock/order)" "$word" ;; esac
done
echo ready
while read -r line; do eval "$line"; done
`;

/** Of a command in a guest, which may be emulated. */
const COMMAND_MS = 60_000;
const BOOT_MS = 120_000;

export interface LinuxVmOptions {
  readonly qemu: QemuVersion;
  /** The SPEC of the device, and how it is shown. */
  readonly device: string;
  readonly present: 'v1' | 'v2';
  /** The machine; default: one that every QEMU has. */
  readonly machine?: string;
  /** Its driver takes INTx, not MSI-X. */
  readonly intx?: boolean;
  readonly incoming?: boolean;
}

/** How often it has rung; interrupts that did not come, and that came unasked; words of BAR0 that are not what was written. */
export interface Counts {
  readonly rung: number;
  readonly lost: number;
  readonly extra: number;
  readonly wrong: number;
}

/** A VM with an emulated device that runs Debian's Linux 6.12, whose driver rings the device's doorbell. */
export class LinuxVm {
  readonly vm: Vm;
  readonly #console: Socket;
  readonly #lines: string[] = [];
  readonly #log: string;
  #commands = 0;

  private constructor(vm: Vm, serial: Socket, log: string) {
    this.vm = vm;
    this.#console = serial;
    this.#log = log;
    readLines(serial, (line) => this.#lines.push(line));
  }

  static async start(bed: TestBed, name: string, options: LinuxVmOptions): Promise<LinuxVm> {
    const sysfs = bed.path(`${name}.sysfs`);
    mkdirSync(sysfs);
    const initrd = bed.path(`${name}.initrd`);
    const init = cpio([{ path: 'first', kind: 'file', data: Buffer.from(INIT), executable: true }]);
    writeFileSync(initrd, Buffer.concat([readFileSync(`${LINUX}/initramfs`), init]));
    const [serial, log] = [bed.path(`${name}.console`), bed.path(`${name}.kernel`)];
    const { qemu, device, present, machine, intx = false, incoming = false } = options;
    const words = `console=ttyS1 quiet panic=-1 nokaslr mitigations=off no_console_suspend rdinit=/first intx=${intx ? 1 : 0}`;
    const vm = await bed.startVm(name, {
      qemu,
      prefix: underShim(name, '--device', device, '--present', present, '--sysfs', sysfs),
      vfio: [`${sysfs}/0000:90:00.0`],
      incoming,
      ...(machine !== undefined && { machine }),
      memory: 256,
      args: Object.entries({
        kernel: `${LINUX}/vmlinuz`,
        initrd,
        append: words,
        chardev: `socket,id=console,path=${serial},server=on,wait=off`,
      })
        .flatMap(([option, text]) => [`-${option}`, text])
        .concat('-serial', 'chardev:console', '-serial', `file:${log}`),
    });
    return new LinuxVm(vm, await connectWhenReady(serial, vm.child, BOOT_MS), log);
  }

  async waitForBoot(): Promise<void> {
    await this.#line((line) => line === 'ready', BOOT_MS, 'the guest to boot');
  }

  /** What a command of the guest's shell prints; it must succeed. */
  async sh(command: string, ms = COMMAND_MS): Promise<string> {
    const marker = `done-${(this.#commands += 1)}-`;
    const begin = this.#lines.length;
    this.#console.write(`{ ${command}; }; status=$?; echo; echo ${marker}$status\n`);
    const last = await this.#line((line) => line.startsWith(marker), ms, command, begin);
    const output = this.#lines.slice(begin, this.#lines.indexOf(last, begin)).join('\n');
    assert.equal(last, `${marker}0`, `${command}: ${output}\n${this.kernelLog}`);
    return output;
  }

  async #line(isIt: (line: string) => boolean, ms: number, what: string, from = 0): Promise<string> {
    const found = async (): Promise<string | undefined> => Promise.resolve(this.#lines.slice(from).find(isIt));
    return poll(
      found,
      ms,
      () => `${what}: ${this.#lines.slice(-5).join('\n')}\n${this.kernelLog}${this.vm.child.lastWords}`,
    );
  }

  get kernelLog(): string {
    return existsSync(this.#log) ? readFileSync(this.#log, 'latin1').slice(-3000) : '';
  }

  async counts(): Promise<Counts> {
    const text = await this.sh(`cd ${DEVICE}/bell && cat rung lost extra wrong`);
    const [rung = -1, lost = -1, extra = -1, wrong = -1] = text.split('\n').map(Number);
    return { rung, lost, extra, wrong };
  }

  async ring(isRinging: boolean): Promise<void> {
    await this.sh(`echo ${isRinging ? 1 : 0} > ${DEVICE}/bell/run`);
  }

  /** Waits until it has rung so often more, and every interrupt came: once, unless some may come twice. */
  async rings(more = 50, mayComeTwice = false): Promise<Counts> {
    const { rung: first } = await this.counts();
    return poll(
      async () => {
        const counts = await this.counts();
        const { rung, lost, wrong, extra } = counts;
        assert.deepEqual(
          { lost, wrong, extra: mayComeTwice ? 0 : extra },
          { lost: 0, wrong: 0, extra: 0 },
          this.kernelLog,
        );
        return rung >= first + more ? counts : undefined;
      },
      COMMAND_MS,
      () => `${more} rings after ${first}\n${this.kernelLog}`,
    );
  }

  /** BAR0 is what the driver has written, word by word. */
  async verify(): Promise<void> {
    assert.equal(await this.sh(`cat ${DEVICE}/bell/verify`), '0');
  }

  /** What guests do to devices: reset, removed and found again, suspended and resumed with all else. It rings before and after. */
  async trouble(): Promise<void> {
    await this.ring(true);
    await this.rings();
    await this.sh(`echo 1 > ${DEVICE}/reset`);
    await this.rings();
    await this.verify();
    await this.sh(`echo 1 > ${DEVICE}/remove && test ! -e ${DEVICE}`);
    await this.sh(`echo 1 > /sys/bus/pci/rescan && test -e ${DEVICE}/bell`);
    await this.ring(true);
    await this.rings();
    await this.suspend();
    await this.rings();
    await this.verify();
  }

  /** To RAM (ACPI S3), and back by what stands for a key. */
  async suspend(): Promise<void> {
    const marker = `resumed-${(this.#commands += 1)}`;
    this.#console.write(`echo mem > /sys/power/state; status=$?; echo; echo ${marker}:$status\n`);
    await this.vm.waitForStatus('suspended', COMMAND_MS);
    await this.vm.qmp.execute('system_wakeup');
    assert.equal(await this.#line((line) => line.startsWith(marker), COMMAND_MS, 'the guest to resume'), `${marker}:0`);
  }

  end(): void {
    this.#console.destroy();
  }
}
