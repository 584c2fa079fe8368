import { randomBytes } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Bed } from '../../src/vmm/bed.ts';
import { Child, killHard, type ChildOptions } from '../../src/vmm/child.ts';
import { qemuCommand, type QemuOptions } from '../../src/vmm/qemu-command.ts';
import { Vm } from '../../src/vmm/vm.ts';
import { qemuProgram, type QemuVersion } from './binaries.ts';
import { findProcesses, MARK, stragglers, type FoundProcess } from './processes.ts';

/**
 * Where a test's directory is. Its name is part of QEMU's options and shell commands, and the path of a UNIX socket has 107
 * bytes at most (sun_path, linux/un.h).
 */
function place(): string {
  const usual = tmpdir();
  return /^[\w./-]{1,60}$/.test(usual) ? usual : '/tmp';
}

export interface VmOptions extends QemuOptions {
  /** Default: 7.2. */
  readonly qemu?: QemuVersion;
}

/** The bed of one test or check, which knows its processes by a mark, those that have left their session too. */
export class TestBed extends Bed {
  readonly #mark = randomBytes(8).toString('hex');
  readonly #vms: Vm[] = [];

  constructor() {
    super(mkdtempSync(join(place(), 'vfio-shim-')));
  }

  /** Starts any command whose end the bed looks after. */
  spawn(command: readonly string[], options: Pick<ChildOptions, 'onOutput'> = {}): Child {
    return this.adopt(new Child(command, { ...options, env: { ...process.env, [MARK]: this.#mark } }));
  }

  /** Starts a VM and waits until its monitor answers. The name is unique in the bed. */
  async startVm(name: string, { qemu: version = '7.2', ...options }: VmOptions = {}, ms?: number): Promise<Vm> {
    const command = qemuCommand(qemuProgram(version), this.path(name), options);
    const vm = await Vm.attach(this.spawn(command), this.path(name), ms);
    this.#vms.push(vm);
    return vm;
  }

  /** What a failed test wants to know: the commands, how they ended, what they printed, what their monitors said. */
  describe(): string {
    return this.children
      .map((child) => {
        const events = this.#vms.find((vm) => vm.child === child)?.qmp.events ?? [];
        const lines = events.map(({ event, data }) => `  ${event} ${JSON.stringify(data)}\n`).join('');
        return `${child.command.join(' ')}\n${child.fate ?? 'still running'}\n${lines}${child.stdout}${child.stderr}`;
      })
      .join('\n');
  }

  processes(): FoundProcess[] {
    const sessions = new Set(this.children.flatMap((child) => child.pid ?? []));
    return findProcesses(this.#mark, sessions);
  }

  protected override killAll(): void {
    for (const { pid } of this.processes()) killHard(pid);
  }

  /**
   * Kills every QEMU. What it ran under must then end by itself; returns what did not (and is killed too) as command lines.
   */
  async cleanUp(graceMs = 5000): Promise<string[]> {
    for (const vm of this.#vms) vm.disconnect();
    for (const found of this.processes()) if (isQemu(found)) killHard(found.pid);
    const left = await stragglers(() => this.processes(), graceMs);
    await this[Symbol.asyncDispose]();
    return left.map((found) => `${found.pid}: ${found.commandLine}`);
  }
}

/** True for QEMU, and for the ld.so of a QEMU that brings its own: `ld-2.31.so`, or `ld-linux-x86-64.so.2` as of 2.34. */
function isQemu({ executable, commandLine }: FoundProcess): boolean {
  const name = basename(executable);
  return name.startsWith('qemu-system-') || (name.startsWith('ld-') && commandLine.includes('/qemu-system-'));
}
