import { POLLIN } from '../../abi/fcntl.ts';
import {
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
} from '../../abi/vfio-device.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import { DmaPace } from '../../sim/dma.ts';
import type { SimSpec } from '../../sim/drivers.ts';
import { MSI_VECTORS, MSIX_VECTORS } from '../../sim/pci-capabilities.ts';
import { createEpoll, unwatch, watch } from '../../sys/epoll.ts';
import { EventFd } from '../../sys/event-fd.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { irq_live, irq_setup, PciInterrupts } from '../../vfio/server/interrupts.ts';
import { INITIATING, stateOf } from './dma-states.ts';
import type { PciConfig } from './pci-config.ts';

/** How many interrupts a device has of each index. ERR is a PCI Express device's. */
const COUNTS = {
  [VFIO_PCI_INTX_IRQ_INDEX]: 1,
  [VFIO_PCI_MSI_IRQ_INDEX]: MSI_VECTORS,
  [VFIO_PCI_MSIX_IRQ_INDEX]: MSIX_VECTORS,
  [VFIO_PCI_ERR_IRQ_INDEX]: 1,
  [VFIO_PCI_REQ_IRQ_INDEX]: 1,
} as const;

/** What no call tells of, as that the device runs again, is looked at so often: in milliseconds. */
const LOOK = 20;

/** Where eventfds are kept for a successor, each in a slot. */
export interface EventFdShelf {
  peek(): Map<number, OwnedFd>;
  put(files: ReadonlyMap<number, { readonly number: number }>): void;
}

/** What a process waits for besides: a descriptor that is readable once a user has unmasked an interrupt by an eventfd. */
export class UnmaskWatch {
  #epoll: OwnedFd | undefined;
  readonly #watched = new Set<EventFd>();

  /** -1 as long as there is nothing to wait for. */
  get fd(): number {
    return this.#watched.size === 0 ? -1 : (this.#epoll?.number ?? -1);
  }

  set(event: EventFd, isWatched: boolean): void {
    this.#epoll ??= createEpoll();
    if (isWatched) {
      watch(this.#epoll.number, event.number, POLLIN);
      this.#watched.add(event);
    } else if (this.#watched.delete(event)) unwatch(this.#epoll.number, event.number); // the user has it open still
  }
}

/** What the interrupts of an emulated device take. */
export interface EmulatedIrqParts {
  readonly spec: SimSpec;
  /** Which are set up: `irq_setup.size` bytes, committed with the device's state. */
  readonly setup: Uint8Array;
  /** What of them counts at once: `irq_live.size` bytes. */
  readonly live: Uint8Array;
  /** The device itself: to ask for its state is nobody's call. */
  readonly device: MigratableDevice;
  readonly config: PciConfig;
  readonly shelf?: EventFdShelf | undefined;
  readonly unmask?: UnmaskWatch | undefined;
}

/** The interrupts of an emulated device: as its user has set them up, raised at a rate, or with each page of DMA. */
export class EmulatedIrqs {
  readonly interrupts: PciInterrupts<EventFd>;
  readonly #parts: EmulatedIrqParts;
  readonly #live: ReturnType<typeof irq_live.view>;
  readonly #pace: DmaPace | undefined;

  constructor(parts: EmulatedIrqParts) {
    const { spec, setup, live, shelf, unmask } = parts;
    this.#parts = parts;
    this.#live = irq_live.view(live);
    this.#pace = typeof spec.irq === 'number' && spec.irq > 0 ? new DmaPace(spec.irq) : undefined;
    this.interrupts = new PciInterrupts<EventFd>({
      counts: COUNTS,
      setup: irq_setup.view(setup),
      live: this.#live,
      kept: eventFds(shelf?.peek()),
      keep: (events) => shelf?.put(events),
      watch: (event, isWatched) => unmask?.set(event, isWatched),
      show: (index, vectors) => {
        if (index === VFIO_PCI_MSIX_IRQ_INDEX) parts.config.setMsixEnabled(vectors > 0);
        else parts.config.setMsiEnabled(vectors);
      },
    });
  }

  /** The device raises interrupts at a rate. */
  get hasRate(): boolean {
    return this.#pace !== undefined;
  }

  /** How often the device has raised an interrupt, in the whole run. */
  get raised(): number {
    return this.#live.raised;
  }

  /** A bit for each vector of MSI-X. */
  get pendingVectors(): number {
    return this.interrupts.pendingVectors;
  }

  /** Raises what is due, and unmasks what was asked for. Returns when there is more to do, if no call comes before. */
  work(now: number, isOpen: () => boolean): number {
    this.interrupts.unmaskIfAsked();
    const pace = this.#pace;
    if (pace === undefined) return Number.POSITIVE_INFINITY;
    const due = this.#mayRaise() ? pace.due(now) : undefined;
    if (due === undefined || (due > 0 && !isOpen())) {
      pace.pause();
      return now + LOOK;
    }
    for (let n = 0; n < due; n += 1) this.#raise(this.#next);
    return pace.next(now);
  }

  /** The device has written a page. */
  onDma(): void {
    if (this.#parts.spec.irq === 'dma') this.#raise(this.#next);
  }

  /** Its user has rung for these vectors, a bit each. */
  ring(vectors: number): void {
    if (!this.#mayRaise()) return;
    for (let vector = 0; vector < MSIX_VECTORS; vector += 1) if (((vectors >> vector) & 1) === 1) this.#raise(vector);
  }

  /** COMMAND may have been written. */
  onConfig(): void {
    this.interrupts.setIntxDisabled(this.#parts.config.isIntxDisabled);
  }

  /** Another user gets the device. */
  opened(): void {
    this.interrupts.clear();
  }

  /** Its user has had the device reset. */
  wasReset(): void {
    this.interrupts.dropPending();
  }

  /** The vector whose turn it is, of those that are set up. */
  get #next(): number {
    return this.raised % Math.max(1, this.interrupts.vectors);
  }

  /** Interrupts by message are writes of the device, as its DMA is. */
  #mayRaise(): boolean {
    const { device, config } = this.#parts;
    const { enabled } = this.interrupts;
    if (!config.isInD0) return false;
    if (enabled !== undefined && enabled !== VFIO_PCI_INTX_IRQ_INDEX && !config.isBusMaster) return false;
    const state = stateOf(device);
    return state !== undefined && INITIATING.has(state);
  }

  #raise(vector: number): void {
    this.interrupts.raise(vector);
    this.#live.raised += 1;
  }
}

function eventFds(files: ReadonlyMap<number, OwnedFd> = new Map()): Map<number, EventFd> {
  const events = new Map<number, EventFd>();
  for (const [slot, file] of files) {
    const event = EventFd.of(file);
    if (event !== undefined) events.set(slot, event);
  }
  return events;
}
