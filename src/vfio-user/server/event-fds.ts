import {
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  VFIO_PCI_INTX_IRQ_INDEX,
} from '../../abi/vfio-device.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { Outlet } from '../../sys/outlet.ts';
import type { Interrupts, IrqSet } from '../../vfio/server/device-requests.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { takeFd, type Message } from '../wire/message.ts';

/** What an eventfd counts by one. */
const ONE = new Uint8Array(BigUint64Array.of(1n).buffer);

/**
 * The interrupts of a device, of which a client has those that it wants tell it by an eventfd. INTx masks itself when it comes, and
 * comes again once it is unmasked, if it was raised meanwhile (drivers/vfio/pci/vfio_pci_intrs.c, Linux 6.12: vfio_intx_handler).
 */
export class EventFds implements Interrupts {
  readonly #counts: Readonly<Record<number, number>>;
  readonly #fds = new Map<number, (OwnedFd | undefined)[]>();
  #isMasked = false;
  #isPending = false;
  /** The message whose descriptors the request that is being answered has. */
  offered: Pick<Message, 'fds'> | undefined;

  /** `counts`: how many interrupts each index has. */
  constructor(counts: Readonly<Record<number, number>>) {
    this.#counts = counts;
  }

  count(index: number): number {
    return this.#counts[index] ?? 0;
  }

  set({ flags, index, start, count, data }: IrqSet): void {
    const action = flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    const kind = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
    const chosen = Array.from({ length: count }, (_, n) => n).filter(
      (n) => kind !== VFIO_IRQ_SET_DATA_BOOL || data[n] !== 0,
    );
    if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) this.#mask(index, action, kind, chosen.length > 0);
    else if (kind === VFIO_IRQ_SET_DATA_EVENTFD) for (const n of chosen) this.#replace(index, start + n, n);
    else if (count === 0) this.#forget(index);
    else for (const n of chosen) this.raise(index, start + n);
  }

  #mask(index: number, action: number, kind: number, isChosen: boolean): void {
    if (index !== VFIO_PCI_INTX_IRQ_INDEX || kind === VFIO_IRQ_SET_DATA_EVENTFD) {
      throw refuse('EINVAL', `SET_IRQS: index ${index} is not masked so`);
    }
    if (!isChosen) return;
    this.#isMasked = action !== VFIO_IRQ_SET_ACTION_UNMASK;
    if (this.#isMasked || !this.#isPending) return;
    this.#isPending = false;
    this.raise(index, 0);
  }

  #replace(index: number, vector: number, place: number): void {
    const fds = this.#fds.get(index) ?? [];
    fds[vector]?.close();
    fds[vector] = this.offered && takeFd(this.offered, place);
    this.#fds.set(index, fds);
  }

  #forget(index: number): void {
    for (const fd of this.#fds.get(index) ?? []) fd?.close();
    this.#fds.delete(index);
    if (index === VFIO_PCI_INTX_IRQ_INDEX) this.#isMasked = this.#isPending = false;
  }

  /** The device raises an interrupt. A client that does not take it keeps nobody waiting. */
  raise(index: number, vector: number): void {
    if (index === VFIO_PCI_INTX_IRQ_INDEX) {
      if (this.#isMasked) {
        this.#isPending = true;
        return;
      }
      this.#isMasked = true;
    }
    const fd = this.#fds.get(index)?.[vector];
    if (fd !== undefined) new Outlet(fd.number).write(ONE);
  }

  /** The client has gone. */
  clear(): void {
    for (const index of this.#fds.keys()) this.#forget(index);
  }
}
