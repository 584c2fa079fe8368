import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { Child } from '../../src/vmm/child.ts';
import { connectWhenReady } from '../../src/vmm/connect.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { readLines } from '../../src/vmm/lines.ts';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import type { TestBed, VmOptions } from '../../tools/vmm/test-bed.ts';
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
/** The guest's memory, which a server of vfio-user gets as a file. */
const MEMORY_MIB = 256;

export interface LinuxVmOptions {
  readonly qemu: QemuVersion;
  /** The SPEC of the device, and how it is shown. */
  readonly device: string;
  readonly present: 'v1' | 'v2';
  /** It is served on a socket, to QEMU itself or to a proxy before it, and QEMU is no program under `run`. */
  readonly socket?: 'served' | 'behind the proxy';
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

/** What gives a VM its device. */
interface DeviceOptions extends VmOptions {
  readonly servers?: readonly Child[];
}

/** The device by `run`. */
function underRun(bed: TestBed, name: string, { device, present }: LinuxVmOptions): DeviceOptions {
  const sysfs = bed.path(`${name}.sysfs`);
  mkdirSync(sysfs);
  return {
    prefix: underShim(name, '--device', device, '--present', present, '--sysfs', sysfs),
    vfio: [`${sysfs}/0000:90:00.0`],
  };
}

/** The device by `serve`, and maybe `proxy`: QEMU is a client of vfio-user. */
async function bySocket(bed: TestBed, name: string, { device, socket }: LinuxVmOptions): Promise<DeviceOptions> {
  requireCli();
  const servers: Child[] = [];
  const listening = async (path: string, command: readonly string[]): Promise<string> => {
    servers.push(bed.spawn([process.execPath, CLI, ...command, '--listen', path]));
    return poll(() => (existsSync(path) ? path : undefined), BOOT_MS, `${command[0]} to listen`);
  };
  const served = await listening(bed.path(`${name}.served`), ['serve', '--device', device]);
  const connect = ['proxy', '--connect', served];
  const path = socket === 'served' ? served : await listening(bed.path(`${name}.proxy`), connect);
  const client = { driver: 'vfio-user-pci', id: 'device', addr: String(VFIO_SLOT), socket: { type: 'unix', path } };
  return { servers, args: ['-device', JSON.stringify(client)] };
}

/** A VM with an emulated device that runs Debian's Linux 6.12, whose driver rings the device's doorbell. */
export class LinuxVm {
  readonly vm: Vm;
  readonly #console: Socket;
  readonly #lines: string[] = [];
  readonly #log: string;
  readonly #servers: readonly Child[];
  #commands = 0;

  private constructor(vm: Vm, serial: Socket, log: string, servers: readonly Child[]) {
    this.vm = vm;
    this.#console = serial;
    this.#log = log;
    this.#servers = servers;
    readLines(serial, (line) => this.#lines.push(line));
  }

  static async start(bed: TestBed, name: string, options: LinuxVmOptions): Promise<LinuxVm> {
    const initrd = bed.path(`${name}.initrd`);
    const init = cpio([{ path: 'first', kind: 'file', data: Buffer.from(INIT), executable: true }]);
    writeFileSync(initrd, Buffer.concat([readFileSync(`${LINUX}/initramfs`), init]));
    const [serial, log] = [bed.path(`${name}.console`), bed.path(`${name}.kernel`)];
    const { qemu, machine = 'pc-i440fx-7.2', intx = false, incoming = false } = options;
    const words = `console=ttyS1 quiet panic=-1 nokaslr mitigations=off no_console_suspend rdinit=/first intx=${intx ? 1 : 0}`;
    const make = options.socket === undefined ? underRun : bySocket;
    const { args = [], servers = [], ...device } = await make(bed, name, options);
    const vm = await bed.startVm(name, {
      qemu,
      incoming,
      machine: `${machine},memory-backend=ram`,
      memory: MEMORY_MIB,
      ...device,
      args: Object.entries({
        object: `memory-backend-memfd,id=ram,size=${MEMORY_MIB}M,share=on`,
        kernel: `${LINUX}/vmlinuz`,
        initrd,
        append: words,
        chardev: `socket,id=console,path=${serial},server=on,wait=off`,
      })
        .flatMap(([option, text]) => [`-${option}`, text])
        .concat('-serial', 'chardev:console', '-serial', `file:${log}`, ...args),
    });
    return new LinuxVm(vm, await connectWhenReady(serial, vm.child, BOOT_MS), log, servers);
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

  /**
   * To RAM (ACPI S3), and back by what stands for a key. A guest of q35 that has been migrated comes back by itself, before QEMU says that it is
   * suspended: its devices have been suspended and resumed then too.
   */
  async suspend(): Promise<void> {
    const marker = `resumed-${(this.#commands += 1)}`;
    const resumed = (): string | undefined => this.#lines.find((line) => line.startsWith(marker));
    this.#console.write(`echo mem > /sys/power/state; status=$?; echo; echo ${marker}:$status\n`);
    const begun = async (): Promise<true | undefined> =>
      resumed() !== undefined || (await this.vm.status()) === 'suspended' ? true : undefined;
    await poll(begun, COMMAND_MS, () => `the guest to suspend\n${this.kernelLog}`);
    if (resumed() === undefined) await this.vm.qmp.execute('system_wakeup');
    const last = await this.#line((line) => line.startsWith(marker), COMMAND_MS, 'the guest to resume');
    assert.equal(last, `${marker}:0`, this.kernelLog);
  }

  /** Ends what serves its device: the VM itself ends with the check. */
  end(): void {
    this.#console.destroy();
    for (const { pid } of this.#servers) if (pid !== undefined) process.kill(pid, 'SIGTERM');
  }
}
