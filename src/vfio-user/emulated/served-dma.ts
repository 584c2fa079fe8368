import { EmulatedDma, type DmaParts, type DmaReach } from '../../interpose/emulated/emulated-dma.ts';
import { moveOfFile, type MappedMemoryAccess, type Moved } from '../../interpose/emulated/mapped-processes.ts';
import { DMA_MEMORY_SIZE, dmaMemory } from '../../interpose/memory/dma-memory.ts';
import { memoryAt } from '../../sys/libc.ts';
import { device_log, type DeviceLog } from '../../vfio/server/device-log.ts';
import type { Client } from '../server/client.ts';
import { ClientMemory } from '../server/client-memory.ts';
import { ClientDma } from '../server/dma.ts';
import type { Message } from '../wire/message.ts';

/** What the DMA of a device takes of the device. */
type OwnParts = Pick<DmaParts, 'spec' | 'device' | 'isBusMaster' | 'onPage' | 'warn'>;

/**
 * The DMA of a device that is served, to what its client has mapped: files, and memory that the client is asked for.
 *
 * A client may answer nothing while it waits itself (server/client.ts). So whatever it asks is answered while it owes a reply, and this
 * keeps the order of what the device does:
 * - Every command, and every write of a REGION_WRITE_MULTI, is followed by a look at whether the device may go on with what is under way: settle(). A
 *   device that was stopped or reset, is no bus master any more, or has lost that memory does not: nothing more is asked for it, and a reply
 *   that comes later tells it nothing. A write in several messages may so be cut short; the device begins that page anew once it may. No list says
 *   which commands stop a device.
 * - The command that did it is answered after that. On one socket, the client had a DMA_WRITE before this answer. On a twin socket it is answered
 *   once the client has answered the DMA_WRITE. An abandoned DMA_READ changes nothing, and is not waited for.
 * - A page is in the logs of dirty pages for as long as the client has not answered its DMA_WRITE, and once more then (EmulatedDma).
 * - The client owes one reply at most, and nothing is kept of what it asks (ClientMemory). Of one that owes a reply for `--timeout`, not counting
 *   what the server takes to answer it, the connection ends (server/serve.ts).
 */
export class ServedDma {
  readonly #working: EmulatedDma | undefined;
  readonly #mapped: ClientDma;
  #asked = new ClientMemory();
  #client: Client | undefined;

  constructor(parts: OwnParts) {
    this.#working = parts.spec.dma === 0 ? undefined : this.#workingOf(parts);
    this.#mapped = new ClientDma(this.#working === undefined ? [] : [this.#working.containerLog]);
  }

  #workingOf(parts: OwnParts): EmulatedDma {
    return new EmulatedDma({
      ...parts,
      place: 0,
      memory: dmaMemory(new Uint8Array(DMA_MEMORY_SIZE)),
      arena: new Uint8Array(device_log.size),
      processes: this.#accessMemory(),
    });
  }

  /** What the device tells by itself of the pages that it has written to. */
  get deviceLog(): DeviceLog | undefined {
    return this.#working?.deviceLog;
  }

  connect(client: Client): void {
    this.#client = client;
  }

  /** DMA_MAP, DMA_UNMAP and v1's DIRTY_PAGES: the reply's body. */
  answer(message: Message): Uint8Array {
    return this.#mapped.answer(message);
  }

  /** Carries a command of the client out, which may fail, and sees to it that a device that it has stopped does no DMA after its answer. */
  during<T>(client: Client, act: () => T): T {
    try {
      return act();
    } finally {
      this.settle();
      if (this.#asked.owesAbandonedWrite) client.drain();
    }
  }

  /** The device does not go on with what it may not. */
  settle(): void {
    const reach = this.#reach;
    if (reach !== undefined) this.#working?.settle(performance.now(), reach);
  }

  /** The device begins anew. */
  abandon(): void {
    this.#working?.abandon();
  }

  get #reach(): DmaReach | undefined {
    const { mappings, container, isLogging } = this.#mapped;
    return this.#client && { container, isLogging, mappings, isOpen: () => true, peers: () => [] };
  }

  work(now: number): number {
    return this.#working?.work(now, this.#reach) ?? Number.POSITIVE_INFINITY;
  }

  /** Reads and writes for the device, where its mapping says: the file of that number, or by the client itself. */
  #accessMemory(): MappedMemoryAccess {
    const asked = (): ClientMemory => this.#asked;
    return {
      read: ({ process }, address, at, length) => this.#move('pread64', process, address, at, length),
      write: ({ process }, address, at, length) => this.#move('pwrite64', process, address, at, length),
      get isOwed() {
        return asked().isOwed;
      },
      abandon: () => asked().abandon(),
    };
  }

  #move(call: 'pread64' | 'pwrite64', number: bigint, address: number, at: number, length: number): Moved {
    const client = this.#client;
    if (client === undefined) return false;
    const file = this.#mapped.fileOf(number);
    if (file === undefined) {
      const bytes = memoryAt(at, length);
      return call === 'pread64' ? this.#asked.read(client, address, bytes) : this.#asked.write(client, address, bytes);
    }
    moveOfFile(call, file.number, address, at, length);
    return true;
  }

  /** The client has gone, and all that it has mapped with it. */
  disconnect(): void {
    this.#client = undefined;
    this.#asked = new ClientMemory();
    this.#mapped.clear();
    this.#working?.opened();
  }
}
