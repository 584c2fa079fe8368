import { commonOptions, compatibilityOptions, dirtyOption, streamOptions } from './common-options.ts';
import type { V2Kind } from './driver-kind.ts';
import { Mlx5Device } from './mlx5-device.ts';
import { firmwareErrors } from './mlx5-firmware-error.ts';
import { layoutOf } from './mlx5-layout.ts';
import { any, count, fits32Bits, within, type Check, type ValuesOf } from './option.ts';

const chunkRange = within(64 * 1024, 2 ** 30);
const chunkCheck: Check = (chunk) => (chunk === 0 ? undefined : chunkRange(chunk));

export const mlx5Options = {
  ...commonOptions(64 * 1024),
  ...streamOptions,
  ...compatibilityOptions,
  ...dirtyOption,
  chunk: count('the most bytes of an image in stop-and-copy; 0 is one image of all, below 4G', 8 * 2 ** 20, chunkCheck),
  initial: count('bytes of the memory that pre-copy sends; the rest is for stop-and-copy', 2 ** 20, any),
  delay: count('milliseconds that the firmware takes for an image', 0, fits32Bits),
  reinit: count('the query of pre-copy, from 1, that finds the firmware beginning anew; 0 is none', 0, fits32Bits),
  fwerr: firmwareErrors,
};
export type Mlx5Values = ValuesOf<typeof mlx5Options>;

/**
 * `mlx5`, Nvidia's ConnectX (drivers/vfio/pci/mlx5/{main,cmd}.c, Linux 6.12 and 7.1): a stream of records; images that the firmware saves
 * while others are read, two of them ahead; reads that block; and a query that makes the firmware work.
 */
export const mlx5: V2Kind<typeof mlx5Options> = {
  protocol: 'v2',
  summary: 'Nvidia ConnectX: records, images saved while others are read, several in pre-copy',
  options: mlx5Options,
  pci: { vendor: 0x15b3, device: 0x101e, class: 0x020000 },
  takesPieces: true,
  small: { size: 16 * 1024 },
  keptSize: (values) => layoutOf(values).size,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) => new Mlx5Device(values, memory),
};
