import * as features from '../../abi/vfio-v2.ts';
import * as iommufd from '../../abi/iommufd.ts';
import * as vfio from '../../abi/vfio-ioctl.ts';
import type { Argument } from '../../vfio/argument.ts';

/** The kernel's names of what is asked of a device, a group, a container or an iommufd, for those who read a recording. */

type Asked = 'device' | 'group' | 'container' | 'iommufd';

/** Numbers occur more than once, on descriptors of different kinds. */
const NAMES: Readonly<Record<Asked, readonly RegExp[]>> = {
  device: [/^VFIO_DEVICE_/, /^VFIO_MIG_/],
  group: [/^VFIO_GROUP_/],
  container: [/^VFIO_(GET_API_VERSION|CHECK_EXTENSION|SET_IOMMU)$/, /^VFIO_IOMMU_(?!SPAPR)/],
  iommufd: [
    /^VFIO_(GET_API_VERSION|CHECK_EXTENSION|SET_IOMMU)$/,
    /^VFIO_IOMMU_(GET_INFO|MAP_DMA|UNMAP_DMA|DIRTY_PAGES)$/, // in the place of a container
    /^IOMMU_(DESTROY|IOAS_\w+|OPTION|VFIO_IOAS|HWPT_\w+|GET_HW_INFO|FAULT_QUEUE_ALLOC)$/,
  ],
};
/** Flags have names that begin alike, and are no ioctls: those are numbers of this kind. */
const isIoctl = (value: unknown): value is number =>
  typeof value === 'number' && value >>> 8 === vfio.VFIO_TYPE.charCodeAt(0);

const names = new Map(
  Object.entries(NAMES).map(([asked, patterns]) => {
    const found = Object.entries({ ...vfio, ...iommufd }).flatMap(([name, number]) =>
      isIoctl(number) && patterns.some((pattern) => pattern.test(name)) ? [[number, name] as const] : [],
    );
    return [asked, new Map(found)];
  }),
);

/** `VFIO_*`, or its number in hexadecimal. */
export function requestName(asked: Asked, command: number): string {
  return names.get(asked)?.get(command) ?? `0x${command.toString(16)}`;
}

const PREFIX = 'VFIO_DEVICE_FEATURE_';
const OPERATIONS = [
  ['PROBE', features.VFIO_DEVICE_FEATURE_PROBE],
  ['GET', features.VFIO_DEVICE_FEATURE_GET],
  ['SET', features.VFIO_DEVICE_FEATURE_SET],
] as const;
const FEATURES: ReadonlyMap<number, string> = new Map(
  Object.entries(features).flatMap(([name, number]) =>
    name.startsWith(PREFIX) && typeof number === 'number' && number <= features.VFIO_DEVICE_FEATURE_MASK
      ? [[number, name.slice(PREFIX.length)] as const]
      : [],
  ),
);

/** What a `VFIO_DEVICE_FEATURE` is about. */
export function featureAsked(argument: Argument): string {
  return featureName(features.vfio_device_feature.decode(argument.read(features.vfio_device_feature.size)).flags);
}

/** The operations and the feature in the flags of `struct vfio_device_feature`. */
export function featureName(flags: number): string {
  const number = flags & features.VFIO_DEVICE_FEATURE_MASK;
  const asked = OPERATIONS.flatMap(([name, flag]) => ((flags & flag) === 0 ? [] : [name]));
  return [...asked, FEATURES.get(number) ?? String(number)].join(' ');
}
