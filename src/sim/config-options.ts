import { choice, count, type ValuesOf } from './option.ts';
import { formatSize } from './size.ts';

/** Bytes of a function's configuration space: of one that is reached by PCI's way alone, and by PCI Express's. */
export const CONFIG_SIZE = 256;
export const EXTENDED_CONFIG_SIZE = 4096;

/** How a function can be reset by itself, as Linux names it (Documentation/ABI/testing/sysfs-bus-pci: reset_method). */
const RESET_METHODS = ['flr', 'pm', 'bus'] as const;

/** Of every driver, under `run` and `serve`: what its device's configuration space has. */
export const configOptions = {
  config: count('bytes of its configuration space, 256 or 4096', CONFIG_SIZE, (value) =>
    value === CONFIG_SIZE || value === EXTENDED_CONFIG_SIZE
      ? undefined
      : `is not ${CONFIG_SIZE} or ${formatSize(EXTENDED_CONFIG_SIZE)}`,
  ),
  'reset-method': choice(
    'what resets its function: FLR, the way from D3hot to D0, or nothing but a reset of its bus',
    RESET_METHODS,
  ),
};

export type ConfigValues = ValuesOf<typeof configOptions>;
