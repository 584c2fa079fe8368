import { deviceInfo, regionsOf } from '../vfio/client/device-info.ts';
import { pciId } from '../vfio/client/pci-id.ts';
import { identifySocket } from '../vfio-user/client/identify-socket.ts';
import { Server } from '../vfio-user/client/server.ts';
import { SocketPort } from '../vfio-user/client/socket-port.ts';
import { tryDmaLog } from './dma-logging.ts';
import type { DeviceFacts, Opened } from './opened.ts';

/** How long a server may take for an answer, in milliseconds: it may be quiescing its device meanwhile. */
const TIMEOUT = 30_000;

/** A device behind a server of vfio-user. */
export function openSocket(path: string): Opened {
  const port = new SocketPort(Server.connect(path, { timeout: TIMEOUT }));
  try {
    return {
      name: path,
      migratable: identifySocket(port),
      facts: () => facts(port),
      tryDmaLog: () => tryDmaLog(port),
      close: () => port.close(),
    };
  } catch (error) {
    port.close();
    throw error;
  }
}

function facts(port: SocketPort): DeviceFacts {
  const { flags, regions: count, irqs } = deviceInfo(port);
  const regions = [...regionsOf(port, count)].filter(({ size }) => size > 0);
  return {
    carrier: 'vfio-user',
    driver: undefined,
    sysfs: {},
    flags,
    regions,
    irqs,
    identity: { bus: 'pci', ...pciId(port, regions) },
  };
}
