import { ShimError } from '../../error.ts';
import { VFIO_REGION_TYPE_MIGRATION } from '../../abi/vfio-v1.ts';
import { deviceInfo, migrationRegionAmong, regionsOf } from '../../vfio/client/device-info.ts';
import { whyUnknown } from '../../vfio/client/identify.ts';
import type { DeviceHandle } from '../../kernel/handle.ts';
import { isDraft } from '../../v1/drafts/device.ts';
import { PortV1Device } from '../../vfio/client/port-v1-device.ts';
import { migrationFlagsOf } from '../../vfio/client/port-v2-device.ts';
import type { BridgeOptions } from './bridged-driver.ts';
import { startAnew } from './bridged-facts.ts';
import type { Ledger } from '../memory/ledger.ts';
import { PART_SPAN } from '../memory/inherited.ts';

/**
 * Finds out whether a device is to be bridged, and if so notes in the ledger what there is to know of it. A device that cannot
 * be migrated, and one that speaks what is to be presented, are left alone: returns why.
 */
export function describeDevice(
  device: DeviceHandle,
  name: string,
  ledger: Ledger,
  options: BridgeOptions,
): string | undefined {
  const { present, roundTrip, warn, reach } = options;
  const port = reach.port(device);
  const flags = migrationFlagsOf(port);
  if (flags !== 0) {
    if (present === 'v2' && !roundTrip) return 'speaks v2 already';
    const facts = startAnew(ledger, name);
    facts.flags = flags;
    facts.added = deviceInfo(port).regions;
    facts.used = 1;
    return undefined;
  }
  const { regions: count } = deviceInfo(port);
  const regions = [...regionsOf(port, count)];
  const region = migrationRegionAmong(regions, VFIO_REGION_TYPE_MIGRATION);
  if (region === undefined) return whyUnknown(regions);
  if (present === 'v1') {
    if (roundTrip) warn(`${name}: has a migration region of its own, and is left alone`);
    return 'speaks v1 already';
  }
  const { dataSection } = new PortV1Device(port, region, false);
  if (dataSection.size > PART_SPAN) {
    throw new ShimError(
      'ERR_DEVICE',
      `v1 driver: a data section of ${dataSection.size} bytes, ${PART_SPAN} is the limit`,
      {
        errno: 'EFBIG',
      },
    );
  }
  const facts = startAnew(ledger, name);
  if (isDraft(present)) facts.added = count;
  facts.region = region.index;
  facts.region_flags = region.flags;
  facts.region_size = region.size;
  facts.region_offset = region.offset;
  facts.section_offset = dataSection.offset;
  facts.section_size = dataSection.size;
  facts.used = 1;
  return undefined;
}
