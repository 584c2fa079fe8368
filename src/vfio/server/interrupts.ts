import { struct } from '../../abi/struct.ts';
import {
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
} from '../../abi/vfio-device.ts';
import type { Interrupts, IrqSet, TakeEventFd } from './device-requests.ts';
import { refuse } from './refuse.ts';

/** Which of INTx, MSI and MSI-X is set up: the index and one more, so that 0 is none; and how many vectors were asked for. */
export const irq_setup = struct('irq_setup', 8, { enabled: ['u32', 0], vectors: ['u32', 4] });

/**
 * Whether INTx is masked, and turned off by COMMAND; what was raised that has not been told: INTx, and a bit for each vector of MSI-X; and how
 * many interrupts the device has raised.
 */
export const irq_live = struct('irq_live', 24, {
  masked: ['u32', 0],
  intx_pending: ['u32', 4],
  msix_pending: ['u32', 8],
  intx_disabled: ['u32', 12],
  raised: ['count', 16],
});

/** Somebody's counter, by which interrupts are told or asked for. */
export interface IrqEvent {
  signal(): void;
  /** Sets the counter to 0. True if it was not. */
  take(): boolean;
  close(): void;
}

/** What the interrupts of a device take. */
export interface IrqParts<E extends IrqEvent> {
  /** How many of each index there are: `VFIO_PCI_*_IRQ_INDEX`; of MSI-X 32 at most. */
  readonly counts: Readonly<Partial<Record<number, number>>>;
  /** What counts with the call that changes it. */
  readonly setup: ReturnType<typeof irq_setup.view>;
  /** What counts at once. */
  readonly live: ReturnType<typeof irq_live.view>;
  /** The counters of a predecessor, by their slots. */
  readonly kept?: ReadonlyMap<number, E>;
  /** Keeps the counters for a successor, by their slots. */
  readonly keep?: (events: ReadonlyMap<number, E>) => void;
  /** The counter by which INTx is unmasked is to be looked at, by unmaskIfAsked(), or to be looked at no more. */
  readonly watch?: (event: E, isWatched: boolean) => void;
  /** MSI or MSI-X has been enabled for so many vectors, or disabled: 0, which its capability says. */
  readonly show?: (index: number, vectors: number) => void;
}

/** Where the counter is kept by which INTx is unmasked. */
const UNMASK_SLOT = 0xffff_ffff;
const slotOf = (index: number, vector: number): number => index * 2048 + vector;
const INTX_SLOT = slotOf(VFIO_PCI_INTX_IRQ_INDEX, 0);

/**
 * The interrupts of a PCI device, as vfio-pci lets them be set up and tells of them (drivers/vfio/pci/vfio_pci_intrs.c, Linux 6.12). INTx,
 * MSI and MSI-X exclude each other. INTx masks itself when it comes, and comes again once it is unmasked, if it was raised meanwhile. What
 * a user raises itself, to try the path, is told whether or not it is masked, and masks nothing.
 */
export class PciInterrupts<E extends IrqEvent = IrqEvent> implements Interrupts<E> {
  readonly #parts: IrqParts<E>;
  readonly #events: Map<number, E>;
  #hasChanged = false;

  constructor(parts: IrqParts<E>) {
    this.#parts = parts;
    this.#events = new Map(parts.kept);
    const unmask = this.#events.get(UNMASK_SLOT);
    if (unmask !== undefined) parts.watch?.(unmask, true);
  }

  count(index: number): number {
    return this.#parts.counts[index] ?? 0;
  }

  /** `VFIO_IRQ_INFO_*` (vfio_pci_core.c: vfio_pci_ioctl_get_irq_info), where MSI-X can be allocated later. */
  flags(index: number): number {
    if (index === VFIO_PCI_INTX_IRQ_INDEX) {
      return VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
    }
    return (
      VFIO_IRQ_INFO_EVENTFD | (index === VFIO_PCI_MSIX_IRQ_INDEX && this.count(index) > 0 ? 0 : VFIO_IRQ_INFO_NORESIZE)
    );
  }

  /** The index that is set up; `undefined` if none is. */
  get enabled(): number | undefined {
    const { enabled } = this.#parts.setup;
    return enabled === 0 ? undefined : enabled - 1;
  }

  /** How many vectors are set up. */
  get vectors(): number {
    return this.#parts.setup.vectors;
  }

  set(request: IrqSet, take: TakeEventFd<E>): void {
    try {
      this.#set(request, take);
    } finally {
      this.#keep();
    }
  }

  /** vfio_pci_set_irqs_ioctl. */
  #set(request: IrqSet, take: TakeEventFd<E>): void {
    const { index, flags } = request;
    const action = flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    const isTrigger = action === VFIO_IRQ_SET_ACTION_TRIGGER;
    if (index === VFIO_PCI_INTX_IRQ_INDEX) {
      if (isTrigger) this.#triggerIntx(request, take);
      else if (action === VFIO_IRQ_SET_ACTION_MASK) this.#maskIntx(request);
      else if (action === VFIO_IRQ_SET_ACTION_UNMASK) this.#unmaskIntx(request, take);
      else throw refuse('ENOTTY', `SET_IRQS: no action 0x${action.toString(16)}`);
    } else if (!isTrigger) throw refuse('ENOTTY', `SET_IRQS: interrupts of index ${index} are not masked`);
    else if (index === VFIO_PCI_ERR_IRQ_INDEX || index === VFIO_PCI_REQ_IRQ_INDEX) this.#triggerSingle(request, take);
    else this.#triggerMsi(request, take);
  }

  #triggerIntx(request: IrqSet, take: TakeEventFd<E>): void {
    const { enabled } = this;
    const isIntx = enabled === VFIO_PCI_INTX_IRQ_INDEX;
    const { start, count } = request;
    const kind = kindOf(request);
    if (isIntx && count === 0 && kind === VFIO_IRQ_SET_DATA_NONE) {
      this.#disable();
      return;
    }
    if (!(isIntx || enabled === undefined) || start !== 0 || count !== 1) throw wrong(request);
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) {
      this.#put(INTX_SLOT, eventOf(request, 0, take));
      if (!isIntx) this.#enableIntx();
    } else if (!isIntx) throw wrong(request);
    else if (isChosen(request, 0)) this.#signalIntx();
  }

  #enableIntx(): void {
    const { setup, live } = this.#parts;
    setup.enabled = VFIO_PCI_INTX_IRQ_INDEX + 1;
    setup.vectors = 1;
    live.masked = live.intx_disabled;
    if (live.masked === 0 && live.intx_pending !== 0) {
      live.intx_pending = 0;
      this.#comeIntx(); // the line is asserted still
    }
  }

  #maskIntx(request: IrqSet): void {
    this.#checkIntx(request);
    if (kindOf(request) === VFIO_IRQ_SET_DATA_EVENTFD)
      throw refuse('ENOTTY', 'SET_IRQS: INTx is not masked by eventfd');
    if (isChosen(request, 0)) this.#parts.live.masked = 1;
  }

  #unmaskIntx(request: IrqSet, take: TakeEventFd<E>): void {
    this.#checkIntx(request);
    if (kindOf(request) === VFIO_IRQ_SET_DATA_EVENTFD) this.#unmaskBy(eventOf(request, 0, take));
    else if (isChosen(request, 0)) this.#unmask();
  }

  #checkIntx(request: IrqSet): void {
    if (this.enabled !== VFIO_PCI_INTX_IRQ_INDEX || request.start !== 0 || request.count !== 1) throw wrong(request);
  }

  /** virqfd.c: vfio_virqfd_enable, vfio_virqfd_disable. */
  #unmaskBy(event: E | undefined): void {
    if (event !== undefined && this.#events.has(UNMASK_SLOT)) {
      event.close();
      throw refuse('EBUSY', 'SET_IRQS: INTx is unmasked by an eventfd already');
    }
    this.#put(UNMASK_SLOT, event);
    this.unmaskIfAsked();
  }

  /** Looks whether the user has asked for it by its counter, which tells of it if it has. */
  unmaskIfAsked(): void {
    if (this.#events.get(UNMASK_SLOT)?.take() === true) this.#unmask();
  }

  /** vfio_pci_intx_unmask_handler. */
  #unmask(): void {
    const { live } = this.#parts;
    if (this.enabled !== VFIO_PCI_INTX_IRQ_INDEX || live.masked === 0 || live.intx_disabled !== 0) return;
    if (live.intx_pending === 0) live.masked = 0;
    else {
      this.#signalIntx();
      live.intx_pending = 0;
    }
  }

  /** COMMAND was written: its bit that turns INTx off (vfio_pci_config.c: vfio_basic_config_write). */
  setIntxDisabled(isDisabled: boolean): void {
    const { live } = this.#parts;
    if ((live.intx_disabled !== 0) === isDisabled) return;
    live.intx_disabled = isDisabled ? 1 : 0;
    if (isDisabled) live.masked = 1;
    else this.#unmask();
  }

  #triggerSingle(request: IrqSet, take: TakeEventFd<E>): void {
    const { index, start, count } = request;
    const kind = kindOf(request);
    if (start !== 0 || count > 1) throw wrong(request);
    const slot = slotOf(index, 0);
    const event = this.#events.get(slot);
    if (kind === VFIO_IRQ_SET_DATA_NONE) {
      if (event === undefined) throw wrong(request);
      if (count === 0) this.#put(slot, undefined);
      else event.signal();
      return;
    }
    if (count === 0) throw wrong(request);
    if (kind === VFIO_IRQ_SET_DATA_BOOL) {
      if (isChosen(request, 0)) event?.signal();
    } else if (fdOf(request, 0) >= -1) this.#put(slot, eventOf(request, 0, take)); // below that nothing happens
  }

  #triggerMsi(request: IrqSet, take: TakeEventFd<E>): void {
    const { index, start, count } = request;
    const { enabled } = this;
    const kind = kindOf(request);
    if (enabled === index && count === 0 && kind === VFIO_IRQ_SET_DATA_NONE) {
      this.#disable();
      return;
    }
    if (enabled !== index && enabled !== undefined) throw wrong(request);
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) {
      if (enabled === undefined) this.#enableMsi(request);
      try {
        this.#putBlock(request, take);
      } catch (error) {
        if (enabled === undefined) this.#disable();
        throw error;
      }
      return;
    }
    if (enabled !== index) throw wrong(request);
    for (let n = 0; n < count; n += 1) if (isChosen(request, n)) this.#events.get(slotOf(index, start + n))?.signal();
  }

  #enableMsi({ index, start, count }: IrqSet): void {
    // pci_alloc_irq_vectors, which is asked for at least one
    if (start + count === 0) throw refuse('ERANGE', `SET_IRQS: no vector of index ${index}`);
    const { setup, show } = this.#parts;
    setup.enabled = index + 1;
    setup.vectors = start + count;
    show?.(index, setup.vectors);
  }

  /** vfio_msi_set_block: a vector that fails takes those before it with it. */
  #putBlock(request: IrqSet, take: TakeEventFd<E>): void {
    const { index, start, count } = request;
    for (let n = 0; n < count; n += 1) {
      const slot = slotOf(index, start + n);
      try {
        this.#put(slot, undefined);
        if (fdOf(request, n) < 0) continue;
        const { setup } = this.#parts;
        if (index === VFIO_PCI_MSI_IRQ_INDEX && start + n >= setup.vectors) throw wrong(request);
        this.#put(slot, eventOf(request, n, take));
        if (index === VFIO_PCI_MSIX_IRQ_INDEX) {
          setup.vectors = Math.max(setup.vectors, start + n + 1);
          this.#tellPending(start + n);
        }
      } catch (error) {
        for (let before = 0; before <= n; before += 1) this.#put(slotOf(index, start + before), undefined);
        throw error;
      }
    }
  }

  /** A vector of MSI-X without a counter is masked; what was raised meanwhile comes then. */
  #tellPending(vector: number): void {
    const { live } = this.#parts;
    const bit = 1 << vector;
    if ((live.msix_pending & bit) === 0) return;
    live.msix_pending = (live.msix_pending & ~bit) >>> 0;
    this.#events.get(slotOf(VFIO_PCI_MSIX_IRQ_INDEX, vector))?.signal();
  }

  /** What the pending bits of MSI-X are, the lowest first. */
  get pendingVectors(): number {
    return this.#parts.live.msix_pending;
  }

  /** Of INTx, MSI and MSI-X; what was raised and not told is forgotten but by INTx, whose line stays as it is. */
  #disable(): void {
    const { setup, live, show } = this.#parts;
    const { enabled } = this;
    if (enabled === undefined) return;
    for (const slot of this.#events.keys()) {
      const isOther = slot === slotOf(VFIO_PCI_ERR_IRQ_INDEX, 0) || slot === slotOf(VFIO_PCI_REQ_IRQ_INDEX, 0);
      if (!isOther) this.#put(slot, undefined);
    }
    setup.enabled = 0;
    setup.vectors = 0;
    live.msix_pending = 0;
    if (enabled !== VFIO_PCI_INTX_IRQ_INDEX) show?.(enabled, 0);
  }

  #put(slot: number, event: E | undefined): void {
    const { watch } = this.#parts;
    const old = this.#events.get(slot);
    if (old === event) return;
    this.#hasChanged = true;
    if (old !== undefined) {
      if (slot === UNMASK_SLOT) watch?.(old, false);
      old.close();
    }
    if (event === undefined) this.#events.delete(slot);
    else {
      this.#events.set(slot, event);
      if (slot === UNMASK_SLOT) watch?.(event, true);
    }
  }

  #keep(): void {
    if (!this.#hasChanged) return;
    this.#hasChanged = false;
    this.#parts.keep?.(this.#events);
  }

  /**
   * The device raises an interrupt: this vector of MSI-X; of MSI one of those that are set up, as a device with fewer messages than it could
   * have does; without either it asserts INTx. It is told first, and noted then: who is killed in between tells it twice rather than never.
   */
  raise(number: number): void {
    const { setup, live } = this.#parts;
    const { enabled } = this;
    if (enabled === undefined || enabled === VFIO_PCI_INTX_IRQ_INDEX) {
      if (this.count(VFIO_PCI_INTX_IRQ_INDEX) === 0) return;
      if (enabled === undefined || live.masked !== 0) live.intx_pending = 1;
      else this.#comeIntx();
      return;
    }
    const vector = number % (enabled === VFIO_PCI_MSIX_IRQ_INDEX ? this.count(enabled) : setup.vectors);
    const event = this.#events.get(slotOf(enabled, vector));
    if (event !== undefined) event.signal();
    else if (enabled === VFIO_PCI_MSIX_IRQ_INDEX) live.msix_pending = (live.msix_pending | (1 << vector)) >>> 0;
  }

  /** vfio_intx_handler. */
  #comeIntx(): void {
    this.#signalIntx();
    this.#parts.live.masked = 1;
  }

  /** vfio_send_intx_eventfd. */
  #signalIntx(): void {
    if (this.#parts.live.intx_disabled === 0) this.#events.get(INTX_SLOT)?.signal();
  }

  /** The device was reset: it asserts no more what nobody was told. What is set up, and whether it is masked, is the user's. */
  dropPending(): void {
    const { live } = this.#parts;
    live.intx_pending = live.msix_pending = 0;
  }

  /** As when the device is closed (vfio_pci_core_disable, vfio_pci_core_close_device). */
  clear(): void {
    this.#disable();
    for (const slot of this.#events.keys()) this.#put(slot, undefined);
    const { live } = this.#parts;
    live.masked = live.intx_pending = live.msix_pending = live.intx_disabled = 0;
    this.#keep();
  }
}

function kindOf({ flags }: IrqSet): number {
  return flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
}

/** Whether the n-th of the interrupts is meant: of those that are told by a byte each, if that is not 0. */
function isChosen(request: IrqSet, n: number): boolean {
  return kindOf(request) !== VFIO_IRQ_SET_DATA_BOOL || (request.data[n] ?? 0) !== 0;
}

function fdOf({ data }: IrqSet, n: number): number {
  return new DataView(data.buffer, data.byteOffset, data.byteLength).getInt32(4 * n, true);
}

function eventOf<E>(request: IrqSet, n: number, take: TakeEventFd<E>): E | undefined {
  const fd = fdOf(request, n);
  return fd < 0 ? undefined : take(fd, n);
}

function wrong({ index, flags, start, count }: IrqSet): Error {
  return refuse('EINVAL', `VFIO_DEVICE_SET_IRQS: index ${index}, flags 0x${flags.toString(16)}, ${start}+${count}`);
}
