import { VFIO_DEVICE_FLAGS_PCI, VFIO_PCI_ROM_REGION_INDEX } from '../abi/vfio-device.ts';
import type { ByteStore } from '../sim/byte-store.ts';
import { ShimError } from '../error.ts';
import type { Identity } from '../state-file/identity.ts';
import { devicePath } from '../host/device-path.ts';
import { Host } from '../host/host.ts';
import { stateName, type MigratableDevice } from '../device/migratable.ts';
import type { DeviceName } from './device-name.ts';
import { whyUnknown } from '../vfio/client/identify.ts';
import type { DmaLog } from '../vfio/dma-log.ts';
import type { DmaLogging } from './dma-logging.ts';
import { openKernel } from './device-kernel.ts';
import { openSim } from './device-sim.ts';
import { openSocket } from './device-socket.ts';
import type { DeviceFacts, Opened } from './opened.ts';

/** An open device, the same to every command whatever kind it is. */
export interface OpenDevice extends Disposable {
  /** DEVICE, as it was given. */
  readonly text: string;
  /** As in sysfs; of a simulated device, its SPEC. */
  readonly name: string;
  /** `undefined` if the driver does not support migration. */
  readonly migratable: MigratableDevice | undefined;
  readonly facts: DeviceFacts;
  readonly tryDmaLog: () => DmaLogging;
  /** Its log of DMA; `undefined` if its driver offers none. */
  readonly dmaLog: () => DmaLog | undefined;
  /** The state in which it was found, which is not RUNNING if a VMM died over it. */
  readonly foundIn: string | undefined;
  /** What the guest sees of a simulated device. */
  readonly guestMemory: ByteStore | undefined;
}

export interface OpenOptions {
  /** To look at the device only: a simulated one then has no memory of its own. */
  readonly look?: boolean;
}

/** Opens DEVICE. Its state is asked for before anything else. */
export function openDevice(name: DeviceName, options: OpenOptions = {}): OpenDevice {
  const look = options.look === true;
  const opened = opener(name, look);
  try {
    const { migratable } = opened;
    const foundIn = migratable === undefined ? undefined : stateName(migratable);
    return {
      text: name.text,
      name: opened.name,
      migratable,
      foundIn,
      facts: opened.facts(),
      tryDmaLog: () => opened.tryDmaLog(),
      dmaLog: () => opened.dmaLog?.(),
      guestMemory: opened.guestMemory,
      [Symbol.dispose]: () => opened.close(),
    };
  } catch (error) {
    opened.close();
    throw error;
  }
}

function opener(name: DeviceName, look: boolean): Opened {
  if (name.kind === 'sim') return openSim(name.spec, name.text, look);
  return name.kind === 'socket' ? openSocket(name.path) : openKernel(kernelPath(name), look);
}

function kernelPath(name: Extract<DeviceName, { kind: 'vfio' | 'host' }>): string {
  return name.kind === 'vfio' ? name.path : devicePath(new Host(), name.name);
}

/** The device in the protocol that it speaks. Throws `ERR_FEATURE_UNSUPPORTED` if it speaks none. */
export function migratableOf({ text, migratable, facts }: OpenDevice): MigratableDevice {
  if (migratable !== undefined) return migratable;
  throw new ShimError('ERR_FEATURE_UNSUPPORTED', `${text}: ${whyUnknown(facts.regions)}`, { errno: 'ENOTTY' });
}

/** Everything that tells a device from one that its state is not for. */
export function identityOf({ facts }: OpenDevice): Identity {
  const isPci = (facts.flags & VFIO_DEVICE_FLAGS_PCI) !== 0;
  const own = facts.regions.filter(
    ({ index, size, type }) => size > 0 && type === undefined && (!isPci || index < VFIO_PCI_ROM_REGION_INDEX),
  );
  return { ...facts.identity, regions: own.map(({ index, size }) => `${index}=${size}`).join(' ') };
}
