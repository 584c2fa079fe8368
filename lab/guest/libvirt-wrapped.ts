import assert from 'node:assert/strict';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { check, note } from './check.ts';
import { domain, NEW_PROPERTIES, OLD_PROPERTIES, type Domain } from './libvirt-domain.ts';
import { LibvirtHost, type LibvirtMode, type LibvirtSuite } from './libvirt-host.ts';
import type { Mtty } from './mtty.ts';
import { assertUnserved } from './serving.ts';

/** A release's own QEMU, without the wrapper. */
export const QEMU = '/usr/bin/qemu-system-x86_64';

/** The directory of a wrapper's emulated devices, in each host. */
const SYSFS = '/vm/devices';

/** A host and its wrappers: for devices of the kernel, and with emulated ones. */
export interface Wrapped {
  readonly host: LibvirtHost;
  /** Speaks v1: the release's QEMU is 7.2. */
  readonly old: boolean;
  readonly bridging: string;
  readonly emulating: string;
  /** Where a domain finds the emulated devices. */
  readonly sysfs: readonly string[];
}

interface WrappedOptions {
  readonly mode?: LibvirtMode;
  /** The SPECs of the emulated devices. */
  readonly emulated?: readonly string[];
  /** More options of the wrapper that has them. */
  readonly options?: readonly string[];
}

/** Starts a host, and makes its wrappers as docs/libvirt.md says. */
export async function startWrapped(
  bed: TestBed,
  name: string,
  suite: LibvirtSuite,
  { mode = 'system', emulated = ['qat,size=1M'], options: more = [] }: WrappedOptions = {},
): Promise<Wrapped> {
  const host = await LibvirtHost.start(bed, name, suite, mode);
  const old = suite === 'bookworm';
  const options = old ? ['--present', 'v1'] : ['--present', 'v2', '--round-trip'];
  const bridging = await host.installWrapper(bed, 'qemu-bridged', ...options);
  const devices = emulated.flatMap((spec) => ['--device', spec]);
  const emulation = ['--present', old ? 'v1' : 'v2', ...devices, '--sysfs', SYSFS, ...more];
  const emulating = await host.installWrapper(bed, 'qemu-emulating', ...emulation);
  const sysfs = emulated.map((_, n) => `${SYSFS}/0000:9${n}:00.0`);
  const version = await host.virsh(bed, 'version');
  note(`${name}: ${version.trim().split('\n').slice(1).join(', ')}`);
  return { host, old, bridging, emulating, sysfs };
}

/** A domain whose device is an mtty, under the wrapper unless it has another emulator. */
export function withMtty(name: string, { bridging, old }: Wrapped, mtty: Mtty, emulator = bridging): Domain {
  return domain(name, emulator, { mtty, properties: old ? OLD_PROPERTIES : NEW_PROPERTIES });
}

/** A domain with the emulated devices of the wrapper. */
export function withEmulated(name: string, { emulating, sysfs, old }: Wrapped): Domain {
  const properties = old ? 'x-enable-migration=on' : 'enable-migration=on';
  return domain(name, emulating, { sysfs, properties });
}

/** The same domain, as another has it: a migration changes emulator and device, and no name. */
export function as({ name, uuid }: Domain, other: Domain): Domain {
  return { ...other, name, uuid };
}

/** What libvirt finds out of an emulator: by its probing, the first time that it is asked. */
function capabilities(bed: TestBed, host: LibvirtHost, emulator: string): Promise<string> {
  return host.virsh(bed, 'domcapabilities', 'qemu', emulator, 'x86_64', 'pc-i440fx-7.2');
}

async function assertProbed(bed: TestBed, host: LibvirtHost, emulator: string): Promise<void> {
  const native = await capabilities(bed, host, QEMU);
  assert.match(native, /<machine>pc-i440fx-7\.2</);
  assert.equal((await capabilities(bed, host, emulator)).replace(emulator, QEMU), native);
  await assertUnserved();
}

export async function checkProbing(title: string, { host, bridging }: Wrapped): Promise<void> {
  await check(`${title}: libvirt learns through the wrapper what it learns of QEMU`, async (bed) => {
    await assertProbed(bed, host, bridging);
  });
}

/** Who writes a script without the wrapper's exceptions has the probing under `run`. */
export async function checkProbingUnderRun(title: string, { host, bridging }: Wrapped): Promise<void> {
  await check(`${title}: libvirt's probing under run ends, and learns the same`, async (bed) => {
    const plain = '/usr/local/bin/qemu-plainly-bridged';
    const script = 'busybox sed "/^for /,/^done/d" "$1" > "$2"; busybox chmod 755 "$2"; ! busybox grep -q none "$2"';
    await host.run(bed, 'sh', '-c', script, 'sh', bridging, plain);
    await assertProbed(bed, host, plain);
  });
}
