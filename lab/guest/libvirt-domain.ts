import { randomUUID } from 'node:crypto';
import { MEMORY_MIB, VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Mtty } from './mtty.ts';

/** A domain as docs/libvirt.md shows it, with nothing in it but what a VM needs to run its firmware. */
export interface Domain {
  readonly name: string;
  readonly uuid: string;
  readonly emulator: string;
  readonly device: DomainDevice;
}

/** Emulated devices that libvirt does not know of, or one of the kernel. */
export type DomainDevice =
  | { readonly sysfs: readonly string[]; readonly properties: string }
  | { readonly mtty: Mtty; readonly properties: readonly OverriddenProperty[] };

export interface OverriddenProperty {
  readonly name: string;
  readonly type: 'bool' | 'string';
  readonly value: string;
}

/** What makes a device of QEMU 7.2 migratable, and what one of QEMU 10. */
export const OLD_PROPERTIES: readonly OverriddenProperty[] = [
  { name: 'x-enable-migration', type: 'bool', value: 'true' },
];
export const NEW_PROPERTIES: readonly OverriddenProperty[] = [
  { name: 'enable-migration', type: 'string', value: 'on' },
  { name: 'x-device-dirty-page-tracking', type: 'string', value: 'off' }, // mtty's log cannot be reported
];

export function domain(name: string, emulator: string, device: DomainDevice): Domain {
  return { name, uuid: randomUUID(), emulator, device };
}

/** The machine is one that QEMU 7.2 and every later one have. Monitor and memory are at the same place on every host. */
export function xmlOf({ name, uuid, emulator, device }: Domain): string {
  return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${name}</name>
  <uuid>${uuid}</uuid>
  <memory unit='MiB'>${MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>${emulator}</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
${'mtty' in device ? hostdev(device.mtty) : ''}  </devices>
  <qemu:commandline>
${argumentsOf(name, device)
  .map((value) => `    <qemu:arg value='${value}'/>\n`)
  .join('')}  </qemu:commandline>
${'mtty' in device ? override(device.properties) : ''}</domain>
`;
}

function argumentsOf(name: string, device: DomainDevice): string[] {
  const sockets = ['qmp', 'qtest'].flatMap((what) => [`-${what}`, `unix:/vm/${name}.${what},server=on,wait=off`]);
  if ('mtty' in device) return sockets;
  const { sysfs, properties } = device;
  const devices = sysfs.flatMap((directory, n) => [
    '-device',
    `vfio-pci,sysfsdev=${directory},${properties},bus=pci.0,addr=${VFIO_SLOT + n}`,
  ]);
  return [...sockets, ...devices];
}

const hostdev = ({ uuid }: Mtty): string => `    <hostdev mode='subsystem' type='mdev' model='vfio-pci'>
      <source><address uuid='${uuid}'/></source>
      <alias name='ua-accelerator'/>
      <address type='pci' domain='0' bus='0' slot='${VFIO_SLOT}' function='0'/>
    </hostdev>
`;

const override = (properties: readonly OverriddenProperty[]): string => `  <qemu:override>
    <qemu:device alias='ua-accelerator'>
      <qemu:frontend>
${properties.map(({ name, type, value }) => `        <qemu:property name='${name}' type='${type}' value='${value}'/>\n`).join('')}      </qemu:frontend>
    </qemu:device>
  </qemu:override>
`;
