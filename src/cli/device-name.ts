import { ShimError } from '../error.ts';
import { hostName, type HostName } from '../host/device-path.ts';
import type { SimSpec } from '../sim/drivers.ts';
import { isRecording, recordedSpec } from '../recorded/recorded-spec.ts';
import { parseSpec } from '../sim/spec.ts';
import { specHelp } from '../sim/spec-help.ts';

/**
 * DEVICE of a command: a simulated device, one behind the socket of a server of vfio-user, or one of the kernel, by the path that it is
 * opened by or by a name of this host's.
 */
export type DeviceName =
  | { readonly kind: 'sim'; readonly text: string; readonly spec: SimSpec }
  | { readonly kind: 'vfio'; readonly text: string; readonly path: string }
  | { readonly kind: 'socket'; readonly text: string; readonly path: string }
  | { readonly kind: 'host'; readonly text: string; readonly name: HostName };

/** Takes DEVICE apart. Throws `ERR_ARGUMENT` or `ERR_SPEC`; nothing is opened or looked for, but a recording, which is read. */
export function parseDevice(text: string): DeviceName {
  if (isRecording(text)) return { kind: 'sim', text, spec: recordedSpec(text) };
  if (text.startsWith('sim:')) return { kind: 'sim', text, spec: parseSpec(text.slice('sim:'.length)) };
  if (text.startsWith(SOCKET)) return { kind: 'socket', text, path: text.slice(SOCKET.length) };
  const rest = text.replace(/^vfio:/, '');
  const name = hostName(rest);
  if (name !== undefined) return { kind: 'host', text, name };
  if (CDEV.test(rest) || IN_GROUP.test(rest)) return { kind: 'vfio', text, path: rest };
  throw new ShimError(
    'ERR_ARGUMENT',
    `device ${JSON.stringify(text)}: is neither sim:SPEC nor vfio-user:SOCKET nor a device of the kernel: 0000:01:00.0, a UUID, /dev/vfio/26, /dev/vfio/26:0000:01:00.0 or /dev/vfio/devices/vfio0`,
  );
}

const SOCKET = 'vfio-user:';
const CDEV = /^\/dev\/vfio\/devices\/[^/]+$/;
const IN_GROUP = /^\/[^:]*:[^/]+$/;

export const deviceHelp = `
DEVICE is one of
  sim:SPEC                      a simulated device, which exists within this command only
  recording:FILE[,device=NAME]  a recorded device, which answers as its driver did (docs/replay.md)
  vfio-user:SOCKET              a device behind a server of vfio-user, by the path of its socket
  0000:01:00.0, 01:00.0         a PCI device of the host, by its address
  UUID                          a mediated device of the host
  /dev/vfio/26                  the only device of a group
  /dev/vfio/26:0000:01:00.0     a device by its group and name
  /dev/vfio/devices/vfio0       a device by its own node (Linux 6.6, iommufd)
Those of the kernel may have vfio: before them. "vfio-shim list" shows them.

${specHelp()}`;
