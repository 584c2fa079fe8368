import { commonOptions, compatibilityOptions, dirtyOption } from './common-options.ts';
import { count, flag, within, type Check, type ValuesOf } from './option.ts';
import { PAGE } from './vendor-v1-format.ts';

/** A page behind a record, at least. */
const sectionRange = within(2 * PAGE, 2 ** 30);
const sectionCheck: Check = (section) =>
  section % PAGE === 0 ? sectionRange(section) : `is not a multiple of ${PAGE}`;

/** Of drivers that send memory while the device runs, in buffers as large as their data section. */
export const iterativeOptions = {
  ...commonOptions(1024 * 1024),
  ...compatibilityOptions,
  ...dirtyOption,
  section: count('bytes of the data section', 1024 * 1024, sectionCheck),
};

export const vendorV1Options = {
  ...iterativeOptions,
  strict: flag("1 refuses transactions that are not the source's"),
  libvfio: flag("1 has the habits of libvfio-user's v1 servers: no 0 to 2, 0 to 4, 4 to 0; pending_bytes is 1 or 0"),
};

export type IterativeValues = ValuesOf<typeof iterativeOptions>;
export type VendorV1Values = ValuesOf<typeof vendorV1Options>;
