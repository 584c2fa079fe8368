import { constants } from 'node:fs';
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_info,
  vfio_region_info,
  VFIO_PCI_BAR0_REGION_INDEX,
} from '../../src/abi/vfio.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { AT_FDCWD, O_RDWR } from '../../src/abi/fcntl.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../src/abi/mman.ts';
import type { SyscallName } from '../../src/abi/syscalls.ts';
import { ownRegionOffset, regionOffset } from '../../src/interpose/run/window.ts';
import { arch } from '../../src/sys/libc.ts';
import { cut } from './bytes.ts';
import { callText, Puppet, type Argument, type Outcome } from './puppet.ts';

const { syscalls } = arch;
/** Bytes of the memory that each thread has for its arguments. */
const ARGUMENTS = 65536;

/** A puppet that behaves as a VMM does: containers, groups, devices, regions. Every answer can be looked at. */
export class VfioPuppet {
  readonly puppet: Puppet;
  /** Is waited for before each access to a region. */
  beforeAccess: (() => Promise<void>) | undefined;
  /** Is waited for before each call that opens something, and before each ioctl. */
  beforeCall: ((givesDescriptor: boolean) => Promise<void>) | undefined;
  readonly #threads = new Set<number>();

  constructor(puppet: Puppet) {
    this.puppet = puppet;
  }

  /** The memory for a thread's arguments; its bytes begin at the start of it. */
  async argumentsOf(thread: number): Promise<string> {
    const name = `args${thread}`;
    if (!this.#threads.has(thread)) {
      this.#threads.add(thread);
      await this.puppet.memory(name, ARGUMENTS);
    }
    return name;
  }

  async open(path: string, thread = 0, flags = O_RDWR): Promise<Outcome> {
    const name = await this.argumentsOf(thread);
    const text = Buffer.from(`${path}\0`).toString('hex');
    await this.beforeCall?.(true);
    return this.puppet.script(
      `put ${name} 0 ${text}; ${callText('openat', [AT_FDCWD, `$${name}`, flags, 0o600])}`,
      thread,
    );
  }

  /** An ioctl with a struct, and what it is afterwards; a number is passed as it is. */
  async ioctl(fd: number, command: number, data: Uint8Array | Argument = 0, thread = 0): Promise<Outcome> {
    await this.beforeCall?.(command === VFIO_GROUP_GET_DEVICE_FD);
    if (!(data instanceof Uint8Array)) return this.puppet.call('ioctl', [fd, command, data], thread);
    const name = await this.argumentsOf(thread);
    const put = `put ${name} 0 ${Buffer.from(data).toString('hex')}`;
    const call = callText('ioctl', [fd, command, `$${name}`]);
    return this.puppet.script(`${put}; ${call}; get ${name} 0 ${data.length}`, thread);
  }

  async pread(fd: number, length: number, offset: bigint, thread = 0): Promise<Outcome> {
    const name = await this.argumentsOf(thread);
    await this.beforeAccess?.();
    const call = callText('pread64', [fd, `$${name}`, length, offset]);
    return this.puppet.script(`${call}; get ${name} 0 ${length}`, thread);
  }

  async pwrite(fd: number, bytes: Uint8Array, offset: bigint, thread = 0): Promise<Outcome> {
    const name = await this.argumentsOf(thread);
    await this.beforeAccess?.();
    const put = `put ${name} 0 ${Buffer.from(bytes).toString('hex')}`;
    return this.puppet.script(`${put}; ${callText('pwrite64', [fd, `$${name}`, bytes.length, offset])}`, thread);
  }

  async mmap(fd: number, length: number, offset: bigint, thread = 0): Promise<Outcome> {
    return this.puppet.call('mmap', [0, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset], thread);
  }

  async peek(address: bigint, length: number): Promise<Uint8Array> {
    return (await this.puppet.script(`peek ${address} ${length}`)).bytes;
  }

  async poke(address: bigint, bytes: Uint8Array): Promise<void> {
    await this.puppet.script(`poke ${address} ${Buffer.from(bytes).toString('hex')}`);
  }

  /** A container with an IOMMU and the groups of these devices, and the devices' descriptors. */
  async openDevices(count = 1): Promise<{ container: number; groups: number[]; devices: DevicePuppet[] }> {
    const container = value(await this.open('/dev/vfio/vfio'));
    const groups: number[] = [];
    const devices: DevicePuppet[] = [];
    for (let n = 0; n < count; n += 1) {
      const group = value(await this.open(`/dev/vfio/${9000 + n}`));
      value(await this.ioctl(group, VFIO_GROUP_SET_CONTAINER, new Uint8Array(new Int32Array([container]).buffer)));
      groups.push(group);
    }
    value(await this.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
    for (const [n, group] of groups.entries()) {
      const name = Buffer.from(`0000:${(0x90 + n).toString(16)}:00.0\0`);
      const fd = value(await this.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name));
      const info = vfio_device_info.encode({ argsz: vfio_device_info.size });
      value(await this.ioctl(fd, VFIO_DEVICE_GET_INFO, info));
      devices.push(new DevicePuppet(this, fd, n));
    }
    return { container, groups, devices };
  }
}

/** Where BAR0 is, as VFIO_DEVICE_GET_REGION_INFO says of emulated devices. */
export const BAR0_AT = ownRegionOffset(VFIO_PCI_BAR0_REGION_INDEX);

/** An open device of a VfioPuppet: its migration region's registers, and its regions' infos. */
export class DevicePuppet {
  readonly user: VfioPuppet;
  readonly fd: number;
  readonly region: bigint;

  constructor(user: VfioPuppet, fd: number, index: number) {
    this.user = user;
    this.fd = fd;
    this.region = regionOffset(index);
  }

  async regionInfo(index: number, argsz: number = vfio_region_info.size): Promise<Outcome> {
    const bytes = new Uint8Array(Math.max(argsz, vfio_region_info.size));
    vfio_region_info.encode({ argsz, index }, bytes);
    return this.user.ioctl(this.fd, VFIO_DEVICE_GET_REGION_INFO, bytes);
  }

  async read(offset: number, length: 4 | 8, thread = 0): Promise<bigint> {
    const outcome = await this.user.pread(this.fd, length, this.region + BigInt(offset), thread);
    const bytes = new Uint8Array(8);
    if (value(outcome) !== length) throw new Error(`pread of ${length} bytes gave ${outcome.value}`);
    bytes.set(outcome.bytes);
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }

  async write(offset: number, length: 4 | 8, data: bigint | number, thread = 0): Promise<Outcome> {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(data), true);
    return this.user.pwrite(this.fd, bytes.subarray(0, length), this.region + BigInt(offset), thread);
  }

  async state(thread = 0): Promise<number> {
    return Number(await this.read(0, 4, thread));
  }

  /** Writes device_state. */
  async enter(state: number, thread = 0): Promise<void> {
    value(await this.write(0, 4, state, thread));
  }

  /** The read loop of v1 in the state that the device is in: data through pread, or through a mapping of the section. */
  async save(mapping?: bigint): Promise<Uint8Array[]> {
    const buffers: Uint8Array[] = [];
    while ((await this.read(8, 8)) !== 0n) {
      const offset = await this.read(16, 8);
      const size = Number(await this.read(24, 8));
      if (size === 0) break;
      buffers.push(await this.#data(offset, size, mapping));
    }
    return buffers;
  }

  /** The write loop of v1. As QEMU does, it cuts a buffer that is larger than the data section. */
  async load(buffers: readonly Uint8Array[], mapping?: bigint, section = 65536): Promise<void> {
    for (const bytes of buffers.flatMap((buffer) => cut(buffer, [section]))) {
      const offset = await this.read(16, 8);
      for (let at = 0; at < bytes.length; at += PIECE) {
        const piece = bytes.subarray(at, at + PIECE);
        if (mapping === undefined) value(await this.user.pwrite(this.fd, piece, this.region + offset + BigInt(at)));
        else await this.user.poke(mapping + offset - SECTION + BigInt(at), piece);
      }
      value(await this.write(24, 8, bytes.length));
    }
  }

  async #data(offset: bigint, size: number, mapping?: bigint): Promise<Uint8Array> {
    if (mapping !== undefined) return this.user.peek(mapping + offset - SECTION, size);
    const bytes = new Uint8Array(size);
    for (let at = 0; at < size; at += PIECE) {
      const length = Math.min(PIECE, size - at);
      const outcome = await this.user.pread(this.fd, length, this.region + offset + BigInt(at));
      value(outcome);
      bytes.set(outcome.bytes, at);
    }
    return bytes;
  }
}

const PIECE = 32768;
/** Where the data section begins in the region. */
export const SECTION = BigInt(DATA_OFFSET);

/** open(2) of a file without a name (asm-generic/fcntl.h); processors have O_DIRECTORY at different places. */
export const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** The value of a call that must have succeeded. */
export function value(outcome: Outcome): number {
  if (outcome.errno !== 'OK') throw new Error(`a call of the puppet failed with ${outcome.errno}`);
  return Number(outcome.value);
}

/** The number of a system call, for scripts. */
export function nr(name: SyscallName): number {
  return syscalls[name];
}
