import { inodeOfOwn } from '../../sys/file.ts';
import { duplicateFd } from '../../sys/pidfd.ts';
import type { AloneOnBus } from '../../vfio/server/hot-reset.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { Descriptor } from '../serve/descriptor.ts';
import type { EmulatedDevice } from './emulated-driver.ts';

/** Who asks for a reset of a device's bus, and what this process knows of descriptors. */
interface Asker {
  readonly tid: number;
  /** The device's id in the iommufd to which it is bound, if that is how it was opened. */
  readonly devid: number | undefined;
  readonly devices: readonly EmulatedDevice[];
  readonly whose: (inode: number) => Descriptor | undefined;
}

/** A device as its bus is reset: each has a bus of its own, below a port that can reset it. */
export function aloneOnBus(device: EmulatedDevice, { tid, devid, devices, whose }: Asker): AloneOnBus {
  const { name, group } = device.driver.plan;
  return {
    ...placeOf(name),
    group,
    devid,
    groupOf: (fd) => {
      using own = duplicateFd(tid, fd);
      if (own === undefined) throw refuse('EBADF', `VFIO_DEVICE_PCI_HOT_RESET: no descriptor ${fd}`);
      const what = whose(inodeOfOwn(own.number));
      return what?.kind === 'group' ? devices[what.group]?.driver.plan.group : undefined;
    },
    reset: () => device.reset(),
  };
}

/** The parts of a PCI address such as `0000:90:00.0`. */
function placeOf(name: string): Pick<AloneOnBus, 'segment' | 'bus' | 'devfn'> {
  const [segment = 0, bus = 0, slot = 0, fn = 0] = name.split(/[:.]/).map((part) => Number.parseInt(part, 16));
  return { segment, bus, devfn: (slot << 3) | fn };
}
