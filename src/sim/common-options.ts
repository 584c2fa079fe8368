import { dmaOptions, irqOption } from './dma-options.ts';
import { configOptions } from './config-options.ts';
import { faultOption } from './fault.ts';
import { any, choice, count, fits32Bits, flag, within, type Check, type ValuesOf } from './option.ts';

/** The kernels that the host of a simulated device may have, where they differ. */
export const KERNELS = ['6.12', '7.1'] as const;
export type Kernel = (typeof KERNELS)[number];

/** Of every driver: guest-visible memory, which is BAR0 and migrates whole; what fills it; what goes wrong; whose kernel it is; and DMA. */
export function commonOptions(size: number, check: Check = within(1, 2 ** 40)) {
  return {
    size: count('bytes of guest-visible memory, e.g. 64K, 256M, 1G', size, check),
    seed: count('a number: the memory begins with its pattern; 0 is zeros', 0, fits32Bits),
    fault: faultOption,
    block: count('how often each read or write says "not yet" first', 0, fits32Bits),
    kernel: choice('the kernel that the driver, the group and the container are of', KERNELS),
    ...dmaOptions,
    irq: irqOption,
    ...configOptions,
  };
}

/** Of drivers whose data is a stream: a v1 driver's data section is written and read whole. */
export const streamOptions = {
  short: count('the most bytes that one read or write moves; 0 is no limit', 0, any),
};

/** Of drivers that send memory in pre-copy. */
export const dirtyOption = {
  dirty: count('pages dirtied with every buffer in pre-copy', 0, fits32Bits),
};

/** Of drivers whose state tells for whom it is. */
export const compatOption = {
  compat: count('a number: only equal ones accept each other', 1, fits32Bits),
};

/** Of drivers whose state tells its version, too. */
export const compatibilityOptions = {
  ...compatOption,
  version: count('a number: the version of the state format; a lower one refuses a higher one', 1, fits32Bits),
};

/** Of drivers that are simulated in two ways: by a stream of this project's own, and closely. */
export const realOption = {
  real: flag("1 has the real driver's stream, sizes and leniencies; with qat, compat is then a mask of capabilities"),
};

/** The options that every simulated driver has. */
export type CommonOptions = ReturnType<typeof commonOptions>;
export type CommonValues = ValuesOf<CommonOptions>;
export type StreamValues = ValuesOf<CommonOptions & typeof streamOptions>;
export type CompatibleValues = ValuesOf<CommonOptions & typeof streamOptions & typeof compatibilityOptions>;
