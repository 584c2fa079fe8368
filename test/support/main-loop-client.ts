import {
  VFIO_USER_DEVICE_FEATURE,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_DMA_WRITE,
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
  VFIO_USER_VERSION,
  vfio_user_dma_map,
  vfio_user_dma_region_access,
  vfio_user_dma_unmap,
  vfio_user_region_access,
} from '../../src/abi/vfio-user.ts';
import { vfio_device_feature } from '../../src/abi/vfio-v2.ts';
import type { OwnedFd } from '../../src/sys/fd.ts';
import { Connection } from '../../src/vfio-user/wire/connection.ts';
import { answerTo, Link } from '../../src/vfio-user/wire/link.ts';
import type { Message } from '../../src/vfio-user/wire/message.ts';
import { encodeVersion } from '../../src/vfio-user/wire/version.ts';

const HEAD = vfio_user_dma_region_access.size;
export const PAGE = 4096;

/** Whole pages of I/O virtual addresses. */
export interface Place {
  readonly at: number;
  readonly size: number;
}

/** The memory of a client, which has no file, by places. */
export class AskedMemory {
  readonly #parts: readonly (Place & { readonly bytes: Uint8Array })[];

  constructor(...places: readonly Place[]) {
    this.#parts = places.map((place) => ({ ...place, bytes: new Uint8Array(place.size) }));
  }

  /** Bytes from an address on; `undefined` if there are none. */
  at(address: number, length: number): Uint8Array | undefined {
    const part = this.#parts.find(({ at, size }) => address >= at && address + length <= at + size);
    return part?.bytes.subarray(address - part.at, address - part.at + length);
  }
}

/** What a DMA_READ or DMA_WRITE is about. */
export function requestOf({ command, body }: Message): {
  isWrite: boolean;
  at: number;
  data: Uint8Array;
  size: number;
} {
  const { addr, count } = vfio_user_dma_region_access.decode(body);
  return { isWrite: command === VFIO_USER_DMA_WRITE, at: Number(addr), data: body.subarray(HEAD), size: Number(count) };
}

/**
 * A client with one socket that has a main loop, as QEMU: what the server asks is kept, and carried out in the main loop, which stands still
 * while it waits for a reply of its own (hw/vfio-user/proxy.c: vfio_user_request, vfio_user_send_wait).
 */
export class MainLoopClient {
  readonly link: Link;
  /** What the server has asked and the main loop has not carried out. */
  readonly asked: Message[] = [];
  readonly memory: AskedMemory;

  constructor(fd: OwnedFd, memory: AskedMemory, timeout = 20_000) {
    this.memory = memory;
    this.link = new Link(new Connection(fd, { peer: 'the server', timeout }), (message) => this.asked.push(message));
  }

  /** Makes a request and waits for its reply: nothing is carried out meanwhile. */
  command(command: number, body: Uint8Array, fds: readonly number[] = []): Message {
    return this.link.ask({ command, name: `command ${command}`, body, fds });
  }

  request(command: number, body: Uint8Array): Uint8Array {
    return answerTo(this.command(command, body), `command ${command}`, 'the server');
  }

  greet(limit = 1024 * 1024): void {
    const capabilities = { max_msg_fds: 8, max_data_xfer_size: limit, migration: { pgsize: PAGE } };
    this.request(VFIO_USER_VERSION, encodeVersion(2, capabilities));
  }

  /** Waits until the server has asked something of a kind, and carries out whatever comes before that. */
  waitFor(command: typeof VFIO_USER_DMA_READ | typeof VFIO_USER_DMA_WRITE): Message {
    const { connection } = this.link;
    for (;;) {
      for (let first = this.asked[0]; first !== undefined; first = this.asked[0]) {
        if (first.command === command) return first;
        this.carryOut();
      }
      if (this.link.attend()) continue;
      connection.waitToReceive(performance.now() + connection.timeout, 'asks for nothing');
    }
  }

  /** The main loop carries out what was asked first, and answers it. */
  carryOut(): Message | undefined {
    const message = this.asked.shift();
    if (message === undefined) return undefined;
    const { isWrite, at, data, size } = requestOf(message);
    const bytes = this.memory.at(at, size);
    if (bytes === undefined) this.link.refuse(message, 'EFAULT');
    else if (isWrite) {
      bytes.set(data);
      this.link.reply(message, message.body.subarray(0, HEAD));
    } else this.link.reply(message, Buffer.concat([message.body, bytes]));
    return message;
  }

  map(place: Place, flags: number): void {
    this.request(...commands.map(place, flags));
  }

  unmap(place: Place): void {
    this.request(...commands.unmap(place));
  }

  read(region: number, offset: number, count: number): Uint8Array {
    return this.request(...commands.read(region, offset, count)).subarray(vfio_user_region_access.size);
  }

  write(region: number, offset: number, data: Uint8Array): void {
    this.request(...commands.write(region, offset, data));
  }

  setBusMaster(on: boolean): void {
    this.request(...commands.setBusMaster(on));
  }

  close(): void {
    this.link.connection.close();
  }
}

export type Command = [command: number, body: Uint8Array];

/** Commands as messages have them. */
export const commands = {
  map: ({ at, size }: Place, flags: number): Command => [
    VFIO_USER_DMA_MAP,
    vfio_user_dma_map.encode({ argsz: 32, flags, addr: BigInt(at), size: BigInt(size) }),
  ],
  unmap: ({ at, size }: Place): Command => [
    VFIO_USER_DMA_UNMAP,
    vfio_user_dma_unmap.encode({ argsz: 24, addr: BigInt(at), size: BigInt(size) }),
  ],
  read: (region: number, offset: number, count: number): Command => [
    VFIO_USER_REGION_READ,
    vfio_user_region_access.encode({ offset: BigInt(offset), region, count }),
  ],
  write: (region: number, offset: number, data: Uint8Array): Command => [
    VFIO_USER_REGION_WRITE,
    Buffer.concat([vfio_user_region_access.encode({ offset: BigInt(offset), region, count: data.length }), data]),
  ],
  /** By COMMAND in config space (linux/pci_regs.h). */
  setBusMaster: (on: boolean): Command => commands.write(7, 4, Uint8Array.of(on ? 4 : 0, 0)),
  reset: (): Command => [VFIO_USER_DEVICE_RESET, new Uint8Array(0)],
  /** `room`: for the answer, if it is longer. */
  feature: (flags: number, data: Uint8Array, room = data.length): Command => [
    VFIO_USER_DEVICE_FEATURE,
    Buffer.concat([vfio_device_feature.encode({ argsz: vfio_device_feature.size + room, flags }), data]),
  ],
} as const;
