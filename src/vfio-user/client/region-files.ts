import { VFIO_REGION_INFO_FLAG_MMAP, vfio_region_info } from '../../abi/vfio-device.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { trySyscall, withAddress } from '../../sys/libc.ts';
import { regionInfoIn, type RegionInfo } from '../../vfio/client/device-info.ts';
import { takeFd, type Message } from '../wire/message.ts';

interface RegionFile {
  readonly fd: OwnedFd;
  readonly info: RegionInfo;
}

/**
 * The files behind regions that a server lets its clients map. They are read and written here, and not mapped: a server that makes its file
 * smaller would kill whoever touches what is gone.
 */
export class RegionFiles {
  readonly #files = new Map<number, RegionFile>();

  /** The server has answered a GET_REGION_INFO, and a file may have come beside it. */
  note(answer: Uint8Array, message: Message): void {
    const { index, flags } = vfio_region_info.decode(answer);
    this.#files.get(index)?.fd.close();
    this.#files.delete(index);
    if ((flags & VFIO_REGION_INFO_FLAG_MMAP) === 0 || message.fds.length === 0) return;
    const info = regionInfoIn(answer, index);
    const fd = takeFd(message);
    if (fd !== undefined) this.#files.set(index, { fd, info });
  }

  /** Reads from a file what may be mapped of a region; `undefined` if that is not in one. */
  read(index: number, at: number, into: Uint8Array): number | undefined {
    return this.#access('pread64', index, at, into);
  }

  write(index: number, at: number, from: Uint8Array): number | undefined {
    return this.#access('pwrite64', index, at, from);
  }

  #access(call: 'pread64' | 'pwrite64', index: number, at: number, bytes: Uint8Array): number | undefined {
    const file = this.#files.get(index);
    if (file === undefined || bytes.length === 0 || !isMappable(file.info, at, bytes.length)) return undefined;
    const { fd, info } = file;
    const moved = withAddress(bytes, (address) =>
      trySyscall(call, fd.number, address, bytes.length, info.offset + BigInt(at)),
    );
    return moved > 0 ? moved : undefined; // no such file: the server is asked
  }

  close(): void {
    for (const { fd } of this.#files.values()) fd.close();
    this.#files.clear();
  }
}

function isMappable({ size, sparse }: RegionInfo, at: number, length: number): boolean {
  const areas = sparse ?? [{ offset: 0, size }];
  return areas.some((area) => at >= area.offset && at + length <= area.offset + area.size);
}
