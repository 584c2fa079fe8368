import { VFIO_MIGRATION_P2P } from '../abi/vfio-v2.ts';
import type { Protocol } from '../device/migratable.ts';
import type { DmaLogging } from './dma-logging.ts';

/** What decides which VMM can migrate a device. */
export interface Capabilities {
  readonly protocol: Protocol | 'none';
  /** `VFIO_MIGRATION_*`, 0 without v2. */
  readonly migrationFlags: number;
  readonly dmaLogging: DmaLogging;
  /** Why a driver is not known, if it is not because it does not support migration. */
  readonly unknown?: string;
}

/** Whether a kind of VMM can migrate the device, and why, or why not. */
export interface Outlook {
  readonly vmm: string;
  readonly works: boolean;
  readonly why: string;
}

const OLD = 'QEMU 5.2 to 7.2';
const NEW = 'QEMU 8.0 and later';
const NO_DRIVER = 'the driver does not support migration';

/**
 * Old VMMs speak v1 only, new ones v2 only (QEMU: hw/vfio/migration.c up to 7.2 and from 8.0 on), and none that was released a draft;
 * `vfio-shim run` presents each as the others. It translates what a driver offers and adds nothing: no P2P, no log of DMA.
 */
export function outlook({ protocol, migrationFlags, dmaLogging, unknown = NO_DRIVER }: Capabilities): Outlook[] {
  const speaks = { old: protocol === 'v1', new: protocol === 'v2' };
  const oldWay = 'needs x-enable-migration=on';
  const newWay = newWays(dmaLogging);
  const natively = (vmm: string, works: boolean, way: string): Outlook => ({
    vmm,
    works,
    why: works ? way : `the VMM speaks ${vmm === OLD ? 'v1' : 'v2'} only, the driver ${protocol} only`,
  });
  const shimmed = (vmm: string, isNative: boolean, way: string): Outlook => ({
    vmm: `${vmm}, under vfio-shim run`,
    works: true,
    why: `${isNative ? 'nothing to translate' : `${protocol} presented as ${vmm === OLD ? 'v1' : 'v2'}`}; ${way}`,
  });
  const all = [
    natively(OLD, speaks.old, oldWay),
    shimmed(OLD, speaks.old, oldWay),
    natively(NEW, speaks.new, newWay),
    shimmed(NEW, speaks.new, newWay),
    several(protocol, migrationFlags),
  ];
  return protocol === 'none' ? all.map(({ vmm }) => ({ vmm, works: false, why: unknown })) : all;
}

/** Clients of vfio-user speak v1 or v2 as VMMs do: what the protocol's own library did before and after September 2023. */
export function socketOutlook(protocol: Capabilities['protocol'], unknown = NO_DRIVER): Outlook[] {
  const native = (speaks: string, works: boolean): Outlook => ({
    vmm: `clients of vfio-user that speak ${speaks}`,
    works,
    why: works ? 'natively' : `they speak ${speaks} only, the server ${protocol} only; vfio-shim proxy translates`,
  });
  const all = [native('v1', protocol === 'v1'), native('v2', protocol === 'v2')];
  return protocol === 'none' ? all.map(({ vmm }) => ({ vmm, works: false, why: unknown })) : all;
}

/** A VMM asks by PROBE alone whether a log is offered, and fails to migrate when it cannot be used (QEMU 10: native, in the lab). */
function newWays(dmaLogging: DmaLogging): string {
  if (dmaLogging === 'works') return 'uses the log of DMA';
  if (dmaLogging === 'no') return 'needs enable-migration=on, as no DMA is logged';
  return 'needs enable-migration=on,x-device-dirty-page-tracking=off, as the log of DMA is refused';
}

/** QEMU 10 migrates a VM with several VFIO devices only if each of them can stop its DMA to the others first. */
function several(protocol: Capabilities['protocol'], flags: number): Outlook {
  const works = protocol === 'v2' && (flags & VFIO_MIGRATION_P2P) !== 0;
  const lacks =
    protocol === 'v2'
      ? 'the driver has no P2P states'
      : `${protocol} has no P2P states; run --offer-p2p shows a full stop in their place`;
  const why = works ? 'the driver has P2P states; the other devices need them too' : lacks;
  return { vmm: 'QEMU 10, several devices in a VM', works, why };
}
