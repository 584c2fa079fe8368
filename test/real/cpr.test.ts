import { closeSync, mkdirSync, openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { killHard, type Child } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { waitForMigration } from '../../src/vmm/migration.ts';
import { qemuCommand, VFIO_SLOT, type QemuOptions } from '../../src/vmm/qemu-command.ts';
import { Vm } from '../../src/vmm/vm.ts';
import { qemuProgram } from '../../tools/vmm/binaries.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { guestRam, makeBusMaster, writtenPages } from '../../tools/vmm/guest-ram.ts';
import { imprint, mismatches, type Imprint } from '../../tools/vmm/imprint.ts';
import { because, lacksKvm } from '../support/host.ts';
import { patient } from '../support/patience.ts';
import { listens } from '../support/unix-sockets.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';

const TIMEOUT = patient(90_000);
const DEVICE = 'qat,size=64K,dma=2000,dma-at=32M+16M';

/* QEMU 11.1 takes the irqfd of an INTx from KVM before it gives a device away, and ends with SIGSEGV if there is none. */

describeWithQemus(['newest'], 'an update of QEMU beneath a VM with an emulated device', () => {
  const bed = useTestBed();
  const lacking = lacksKvm();

  /** A QEMU of the VM: memory that the next one can have, and a device that is not migrated but handed over. */
  function command(name: string, options: QemuOptions = {}): string[] {
    const whole = qemuCommand(qemuProgram('newest'), bed().path(name), {
      machine: 'pc,aux-ram-share=on,memory-backend=ram0',
      vfio: [bed().path('sysfs/0000:90:00.0')],
      vfioProperties: ['enable-migration=off'],
      ...options,
      args: ['-object', 'memory-backend-memfd,id=ram0,size=64M,share=on', ...(options.args ?? [])],
    });
    return whole.map((word) => (word === 'tcg' ? 'kvm' : word));
  }

  /** Runs a script under `run`, with commands as its arguments. */
  function run(script: string, ...commands: string[][]): Child {
    requireCli();
    mkdirSync(bed().path('sysfs'));
    const words = commands.map((words) => words.map((word) => `'${word}'`).join(' '));
    const options = ['--device', DEVICE, '--present', 'v2', '--sysfs', bed().path('sysfs'), '--json'];
    return bed().spawn([process.execPath, CLI, 'run', ...options, '--', 'sh', '-c', script, 'sh', ...words]);
  }

  /** The latest of the device's writes that the guest's memory holds. */
  async function latest(vm: Vm): Promise<number> {
    await vm.stop();
    const written = writtenPages(await guestRam(bed(), vm));
    await vm.cont();
    return Math.max(-1, ...written.map(({ counter }) => counter));
  }

  async function writesBeyond(vm: Vm, counter: number): Promise<number> {
    const more = async (): Promise<number | undefined> => {
      const now = await latest(vm);
      return now > counter ? now : undefined;
    };
    return poll(more, 20_000, () => `the device to write more than ${counter} pages${vm.child.lastWords}`);
  }

  /** What has changed hands is known to a successor too. */
  async function replaceSupervisor(): Promise<void> {
    const all = (): number[] =>
      bed()
        .processes()
        .flatMap(({ pid, commandLine }) => (commandLine.includes('/supervisor-main.') ? [pid] : []));
    const [first = Number.NaN] = all();
    killHard(first);
    await poll(() => all().find((pid) => pid !== first), 10_000, 'another supervisor');
  }

  /** The next QEMU has the VM, its memory and the device's, and the device goes on writing; a successor of the supervisor has it all too. */
  async function goesOn(vm: Vm, child: Child, mark: Imprint, before: number): Promise<void> {
    await vm.waitForStatus('running');
    await vm.waitForTicks();
    expect(await mismatches(vm, mark)).toEqual([]);
    const after = await writesBeyond(vm, before);
    await replaceSupervisor();
    await writesBeyond(vm, after);
    expect(child.stderr).not.toMatch(/cannot write to memory/);
    await vm.qmp.execute('quit');
    vm.disconnect();
    await child.exited;
  }

  const socket = (path: string): object => ({ transport: 'socket', type: 'unix', path });
  const incoming = (channel: string, path: string): string[] => [
    '-incoming',
    JSON.stringify({ 'channel-type': channel, addr: socket(path) }),
  ];

  describe.skipIf(lacking !== undefined)(`with KVM${because(lacking)}`, () => {
    it('hands it to another process (cpr-transfer), where it does its DMA', { timeout: TIMEOUT }, async () => {
      const [go, main, cpr] = ['go', 'main', 'cpr'].map((name) => bed().path(name)) as [string, string, string];
      const next = command('next', { args: [...incoming('main', main), ...incoming('cpr', cpr)] });
      const script = `eval "$1" & until [ -e '${go}' ]; do sleep 0.1; done; eval "$2" & wait`;
      const child = run(script, command('first'), next);
      const first = await Vm.attach(child, bed().path('first'));
      await first.waitForFirmware();
      const mark = await imprint(first);
      await makeBusMaster(first, VFIO_SLOT);
      const before = await writesBeyond(first, -1);

      await first.qmp.execute('migrate-set-parameters', { mode: 'cpr-transfer' });
      closeSync(openSync(go, 'w'));
      await poll(
        () => (listens(cpr) ? true : undefined),
        20_000,
        () => `the next QEMU${child.lastWords}`,
      );
      const channels = Object.entries({ main, cpr }).map(([type, path]) => ({
        'channel-type': type,
        addr: socket(path),
      }));
      await first.qmp.execute('migrate', { channels });
      await waitForMigration(first, 'completed');
      await first.qmp.execute('quit');
      first.disconnect();

      const second = await Vm.attach(child, bed().path('next'));
      await goesOn(second, child, mark, before);
    });

    it('hands it to another program in its place (cpr-exec), where it does its DMA', { timeout: TIMEOUT }, async () => {
      const state = bed().path('state');
      const child = run('eval "exec $1"', command('first'));
      const first = await Vm.attach(child, bed().path('first'));
      await first.waitForFirmware();
      const mark = await imprint(first);
      await makeBusMaster(first, VFIO_SLOT);
      const before = await writesBeyond(first, -1);

      const next = command('next', { args: ['-incoming', `file:${state}`] });
      await first.qmp.execute('migrate-set-parameters', { mode: 'cpr-exec', 'cpr-exec-command': next });
      await first.qmp.execute('migrate', { uri: `file:${state}` });
      const second = await Vm.attach(child, bed().path('next'));
      first.disconnect();
      await goesOn(second, child, mark, before);
    });
  });
});
