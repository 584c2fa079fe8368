import { V1Region } from '../v1/region.ts';
import type { V1Kind } from './driver-kind.ts';
import { VendorV1 } from './vendor-v1-device.ts';
import { vendorV1Options } from './vendor-v1-options.ts';

/** `vendor-v1`: Linux never had a driver of the first protocol, so this one is like none in particular. */
export const vendorV1: V1Kind<typeof vendorV1Options> = {
  protocol: 'v1',
  summary: 'an out-of-tree driver of the first protocol, with iterative pre-copy',
  options: vendorV1Options,
  pci: { vendor: 0x1af4, device: 0x10f1, class: 0xff0000 },
  small: { size: 16 * 1024, section: 8 * 1024 },
  sectionSize: ({ section }) => section,
  keptSize: ({ size }) => size,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) => new V1Region(new VendorV1(values, memory), memory.section),
};
