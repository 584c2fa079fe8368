import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Child, findProcesses, killHard, MARK, type FoundProcess } from './processes.ts';
import { Vm, qemuCommand, type VmOptions } from './qemu.ts';
import { poll } from './wait.ts';

/**
 * Where a test's directory is. Its name is part of QEMU's options and shell commands, and the path of a UNIX socket has 107
 * bytes at most (sun_path, linux/un.h).
 */
function place(): string {
  const usual = tmpdir();
  return /^[\w./-]{1,60}$/.test(usual) ? usual : '/tmp';
}

/** A directory and the processes of one test. */
export class TestBed {
  readonly directory: string;
  readonly #mark = randomBytes(8).toString('hex');
  readonly #children: Child[] = [];
  readonly #vms: Vm[] = [];
  /** For a test run that ends without its hooks. */
  readonly #abandon = (): void => this.processes().forEach(({ pid }) => killHard(pid));

  constructor() {
    this.directory = mkdtempSync(join(place(), 'vfio-shim-'));
    process.once('exit', this.#abandon);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Starts any command whose end the bed looks after. */
  spawn(command: readonly string[]): Child {
    const child = new Child(command, { ...process.env, [MARK]: this.#mark });
    this.#children.push(child);
    return child;
  }

  /** Starts a VM and waits until its monitor answers. The name is unique in the test. */
  async startVm(name: string, options: VmOptions = {}): Promise<Vm> {
    const vm = await Vm.attach(this.spawn(qemuCommand(this.path(name), options)), this.path(name));
    this.#vms.push(vm);
    return vm;
  }

  /** What a failed test wants to know: the commands, how they ended, what they printed, what their monitors said. */
  describe(): string {
    return this.#children
      .map((child) => {
        const events = this.#vms.find((vm) => vm.child === child)?.describeEvents() ?? '';
        return `${child.command.join(' ')}\n${child.fate ?? 'still running'}\n${events}${child.stdout}${child.stderr}`;
      })
      .join('\n');
  }

  processes(): FoundProcess[] {
    const sessions = new Set(this.#children.flatMap((child) => child.pid ?? []));
    return findProcesses(this.#mark, sessions);
  }

  /**
   * Kills every QEMU. What it ran under must then end by itself; returns what did not (and is killed too) as command lines.
   */
  async cleanUp(graceMs = 5000): Promise<string[]> {
    process.off('exit', this.#abandon);
    for (const vm of this.#vms) vm.disconnect();
    for (const found of this.processes()) if (isQemu(found)) killHard(found.pid);
    const left = await poll(() => (this.processes().length === 0 ? [] : undefined), graceMs, '').catch(() =>
      this.processes(),
    );
    for (const { pid } of left) killHard(pid);
    rmSync(this.directory, { recursive: true, force: true });
    return left.map((found) => `${found.pid}: ${found.commandLine}`);
  }
}

/** True for QEMU, and for the ld.so of a QEMU that brings its own. */
function isQemu({ executable, commandLine }: FoundProcess): boolean {
  const name = basename(executable);
  return name.startsWith('qemu-system-') || (name.startsWith('ld-linux') && commandLine.includes('/qemu-system-'));
}
