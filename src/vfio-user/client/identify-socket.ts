import type { MigratableDevice } from '../../device/migratable.ts';
import { ShimError } from '../../error.ts';
import { identify } from '../../vfio/client/identify.ts';
import { BufferedV1 } from './buffered-v1.ts';
import type { SocketPort } from './socket-port.ts';

/** The device behind a socket in the protocol that it speaks; `undefined` if it speaks none. */
export function identifySocket(port: SocketPort): MigratableDevice | undefined {
  try {
    const found = identify(port);
    return found.protocol === 'v1' ? { protocol: 'v1', device: new BufferedV1(found.device, port) } : found;
  } catch (error) {
    if (error instanceof ShimError && error.code === 'ERR_FEATURE_UNSUPPORTED') return undefined;
    throw error;
  }
}
