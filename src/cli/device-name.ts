import { ShimError } from '../error.ts';
import type { SimSpec } from '../sim/drivers.ts';
import { parseSpec } from '../sim/spec.ts';
import { specHelp } from '../sim/spec-help.ts';

/** DEVICE of a command: a simulated device, or one of the kernel. */
export type DeviceName =
  | { readonly kind: 'sim'; readonly text: string; readonly spec: SimSpec }
  | { readonly kind: 'vfio'; readonly text: string; readonly path: string };

/** Takes DEVICE apart. Throws `ERR_ARGUMENT` or `ERR_SPEC`; nothing is opened. */
export function parseDevice(text: string): DeviceName {
  const at = text.indexOf(':');
  const [kind, rest] = [text.slice(0, Math.max(0, at)), text.slice(at + 1)];
  if (kind === 'sim') return { kind, text, spec: parseSpec(rest) };
  if (kind !== 'vfio') {
    throw new ShimError('ERR_ARGUMENT', `device ${JSON.stringify(text)}: is neither sim:SPEC nor vfio:PATH`);
  }
  const isCdev = /^\/dev\/vfio\/devices\/[^/]+$/.test(rest);
  if (!isCdev && !/^\/[^:]*:[^/]+$/.test(rest)) {
    throw new ShimError(
      'ERR_ARGUMENT',
      `device ${JSON.stringify(text)}: give a group and a device in it, vfio:/dev/vfio/26:0000:01:00.0, or vfio:/dev/vfio/devices/vfio0`,
    );
  }
  return { kind, text, path: rest };
}

export const deviceHelp = `
DEVICE is one of
  sim:SPEC                            a simulated device, which exists within this command only
  vfio:/dev/vfio/GROUP:NAME           a device of the kernel, by its group, e.g. vfio:/dev/vfio/26:0000:01:00.0
  vfio:/dev/vfio/devices/vfioN        a device of the kernel, by its own node (Linux 6.6, iommufd)

${specHelp()}`;
