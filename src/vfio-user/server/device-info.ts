import {
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DEVICE_GET_IRQ_INFO,
  VFIO_USER_DEVICE_GET_REGION_INFO,
} from '../../abi/vfio-user.ts';
import {
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  vfio_irq_set,
  vfio_region_info,
} from '../../abi/vfio-device.ts';
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_SET_IRQS,
} from '../../abi/vfio-ioctl.ts';
import { deviceRequest, type DeviceHost, type DeviceRegions } from '../../vfio/server/device-requests.ts';
import { EventFd } from '../../sys/event-fd.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { takeFd, type Message } from '../wire/message.ts';
import { MessageArgument } from './argument.ts';
import { inBody } from './body.ts';

/** The ioctl whose struct the body of a command is. */
export const INFO_REQUESTS: ReadonlyMap<number, number> = new Map([
  [VFIO_USER_DEVICE_GET_INFO, VFIO_DEVICE_GET_INFO],
  [VFIO_USER_DEVICE_GET_REGION_INFO, VFIO_DEVICE_GET_REGION_INFO],
  [VFIO_USER_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_GET_IRQ_INFO],
]);

/** More than any answer takes, with all capabilities. */
const MAX_INFO = 4096;

/** A struct with room for the answer that its `argsz` says. */
export function infoArgument(body: Uint8Array): MessageArgument {
  const [argsz = 0] = body.length < 4 ? [] : new Uint32Array(body.slice(0, 4).buffer);
  if (argsz < 4) throw refuse('EINVAL', `a struct of ${body.length} bytes, argsz ${argsz}`);
  const struct = new Uint8Array(Math.min(argsz, MAX_INFO));
  struct.set(body.subarray(0, struct.length));
  new DataView(struct.buffer).setUint32(0, struct.length, true);
  return new MessageArgument(struct);
}

/**
 * The answer to a GET_REGION_INFO, and whether it has all that there is to say: a file of the region goes beside that alone. libvfio-user's client
 * takes none with an answer that had no room for the capabilities (1569a37, lib/tran_sock.c: tran_sock_recv_fds). The kernel leaves `argsz` as it
 * was if there was room enough; here it is what the answer has (lib/libvfio-user.c: handle_device_get_region_info).
 */
export function regionAnswer({ struct, answer }: MessageArgument): {
  readonly body: Uint8Array;
  readonly isWhole: boolean;
} {
  const isWhole = vfio_region_info.decode(answer).argsz <= struct.length;
  if (isWhole) vfio_region_info.view(answer).argsz = answer.length;
  return { body: answer, isWhole };
}

const noDataFd = (): void => {};
const noEventFd = (): never => {
  throw refuse('EBADF', 'no descriptor goes beside this message');
};

/** GET_INFO, GET_REGION_INFO and GET_IRQ_INFO: the struct, and the answer in it. */
export function answerInfo({ command, body }: Message, host: DeviceHost, regions: DeviceRegions): MessageArgument {
  const argument = infoArgument(body);
  deviceRequest(argument, INFO_REQUESTS.get(command) ?? 0, host, regions, {
    openDataFd: noDataFd,
    takeEventFd: noEventFd,
  });
  return argument;
}

/** The most interrupts of an index (linux/pci_regs.h: PCI_MSIX_FLAGS_QSIZE). */
const MAX_IRQS = 2048;

/** SET_IRQS, with eventfds beside it: as many as interrupts, or none if these are to tell nobody any more. */
export function answerSetIrqs(message: Message, host: DeviceHost<EventFd>, regions: DeviceRegions): void {
  const { flags, count } = inBody(vfio_irq_set, message.body);
  const given = message.fds.length;
  let struct = message.body;
  if ((flags & VFIO_IRQ_SET_DATA_TYPE_MASK) === VFIO_IRQ_SET_DATA_EVENTFD) {
    if (count > MAX_IRQS || (given !== 0 && given !== count)) {
      throw refuse('EINVAL', `SET_IRQS: ${given} descriptors for ${count} interrupts`);
    }
    const places = Int32Array.from({ length: count }, (_, n) => (given === 0 ? -1 : n));
    struct = Buffer.concat([message.body.subarray(0, vfio_irq_set.size), Buffer.from(places.buffer)]);
    vfio_irq_set.view(struct).argsz = struct.length;
  }
  deviceRequest(new MessageArgument(struct), VFIO_DEVICE_SET_IRQS, host, regions, {
    openDataFd: noDataFd,
    takeEventFd: (_, n) => {
      const fd = takeFd(message, n);
      const event = fd && EventFd.of(fd);
      if (event === undefined) throw refuse('EINVAL', `SET_IRQS: descriptor ${n} is none of an eventfd`);
      return event;
    },
  });
}
