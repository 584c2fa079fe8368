import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches, type Imprint } from '../../tools/vmm/imprint.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { xmlOf, type Domain } from './libvirt-domain.ts';
import { check, note } from './check.ts';
import { LibvirtHost } from './libvirt-host.ts';
import { assertUnserved } from './serving.ts';
import { imprintOf, Uart } from './uart.ts';

/** A check in which QEMU is started several times, each time with a Node that runs for the first time. */
export function longCheck(name: string, body: (bed: TestBed) => Promise<void>): Promise<void> {
  const orEnd = async (bed: TestBed): Promise<void> => {
    try {
      await body(bed);
    } catch (error) {
      await LibvirtHost.destroyAll(bed); // the next check has nothing to do with it
      throw error;
    }
  };
  return check(name, orEnd, { ms: 300_000 });
}

/** What a domain's device holds: it is put there once, and looked for wherever the domain has got to. */
export interface Contents {
  put(vm: Vm): Promise<void>;
  assertIn(vm: Vm): Promise<void>;
}

/** Registers and receive FIFO of both ports of an mtty. */
export function uartContents(seed: number): Contents {
  const ports = [
    { port: 0, mark: seed },
    { port: 1, mark: ~seed & 0xff },
  ];
  return {
    put: async (vm) => {
      for (const { port, mark } of ports) await new Uart(vm, { port }).imprint(mark);
    },
    assertIn: async (vm) => {
      for (const { port, mark } of ports) assert.deepEqual(await new Uart(vm, { port }).state(), imprintOf(mark));
    },
  };
}

/** Random bytes in the memory of emulated devices. */
export function memoryContents(devices = 1): Contents {
  const slots = Array.from({ length: devices }, (_, n) => VFIO_SLOT + n);
  const marks = new Map<number, Imprint>();
  return {
    put: async (vm) => {
      for (const slot of slots) marks.set(slot, await imprint(vm, slot));
    },
    assertIn: async (vm) => {
      assert.equal(marks.size, devices);
      for (const [slot, mark] of marks) assert.deepEqual(await mismatches(vm, mark, slot), []);
    },
  };
}

/** A domain that runs on a host, and how it is looked at. */
export interface Running {
  readonly host: LibvirtHost;
  readonly domain: Domain;
  readonly vm: Vm;
  readonly contents: Contents;
}

/** Looks at a domain that its host runs: its device holds what it should, and its CPU goes on. */
export async function arrive(host: LibvirtHost, domain: Domain, contents: Contents): Promise<Running> {
  const vm = await host.attach(domain.name);
  await vm.waitForStatus('running');
  await contents.assertIn(vm);
  await vm.waitForTicks();
  note(`${domain.name} runs on ${host.name}, its device is as it was`);
  return { host, domain, vm, contents };
}

/** Defines and starts a domain, and puts the contents into its device. */
export async function begin(bed: TestBed, host: LibvirtHost, domain: Domain, contents: Contents): Promise<Running> {
  await host.virsh(bed, 'define', fileOf(bed, domain));
  await host.virsh(bed, 'start', domain.name);
  const vm = await host.attach(domain.name);
  await vm.waitForFirmware();
  await contents.put(vm);
  note(`${domain.name} runs on ${host.name}`);
  return { host, domain, vm, contents };
}

function fileOf(bed: TestBed, domain: Domain, name = domain.name): string {
  const file = bed.path(`${name}.xml`);
  writeFileSync(file, xmlOf(domain));
  return file;
}

/** What QEMU is told before a domain is saved, in its monitor's own words. */
type Parameters = Readonly<Record<string, number>>;

/**
 * A domain's life on one host: stopped and gone on, saved into a file, and into the host's own. Its device keeps what it holds.
 * `parameters`: QEMU's, without which it would not come to the end of saving.
 */
export async function live(bed: TestBed, running: Running, parameters?: Parameters): Promise<Running> {
  const { host, domain, contents } = running;
  const virsh = (...args: string[]): Promise<string> => host.virsh(bed, ...args);
  const prepare = async (): Promise<void> => {
    if (parameters === undefined) return;
    const command = JSON.stringify({ execute: 'migrate-set-parameters', arguments: parameters });
    assert.ok((await virsh('qemu-monitor-command', domain.name, command)).startsWith('{"return":{}'));
  };
  await virsh('suspend', domain.name);
  await running.vm.waitForStatus('paused');
  await virsh('resume', domain.name);
  await contents.assertIn(running.vm);
  running.vm.disconnect();
  note(`${domain.name} was stopped and goes on`);

  const file = `/vm/${domain.name}.save`;
  await prepare();
  await virsh('save', domain.name, file);
  assert.equal((await virsh('domstate', domain.name)).trim(), 'shut off');
  await virsh('restore', file);
  (await arrive(host, domain, contents)).vm.disconnect();

  await prepare();
  await virsh('managedsave', domain.name);
  assert.equal((await virsh('domstate', domain.name)).trim(), 'shut off');
  await virsh('start', domain.name);
  return arrive(host, domain, contents);
}

/** How a domain's state goes from host to host. */
export type Road = 'unix' | 'tcp';

let journeys = 0;

/** Migrates a domain to another host, where it may have another emulator and device, while it runs. */
export async function migrate(
  bed: TestBed,
  running: Running,
  to: LibvirtHost,
  there: Domain,
  road: Road,
  ...more: string[]
): Promise<Running> {
  running.vm.disconnect();
  const n = ++journeys;
  const uri = road === 'unix' ? `unix:///tmp/vfio-shim-road-${n}` : `tcp://127.0.0.1:${49_160 + n}`;
  const xml = fileOf(bed, there, `${there.name}-${n}`);
  const asThere = ['--xml', xml, '--persistent', '--persistent-xml', xml, '--undefinesource'];
  const options = ['--live', ...asThere, '--migrateuri', uri, ...more];
  await running.host.virsh(bed, 'migrate', ...options, there.name, to.uri);
  assert.ok(!(await running.host.virsh(bed, 'list', '--all', '--name')).includes(there.name));
  return arrive(to, there, running.contents);
}

/** Ends a domain, and waits until nothing serves its QEMU. */
export async function finish(bed: TestBed, { host, domain, vm }: Running): Promise<void> {
  vm.disconnect();
  await host.virsh(bed, 'destroy', domain.name);
  await host.virsh(bed, 'undefine', domain.name);
  await assertUnserved();
}
