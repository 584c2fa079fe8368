import { vfio_info_cap_header } from '../../abi/vfio-device.ts';

/**
 * Where each capability of an INFO struct begins, by its id (linux/vfio.h: struct vfio_info_cap_header). Follows the chain as far
 * as it goes forward within the bytes: a driver may say anything.
 */
export function capabilities(bytes: Uint8Array, first: number): Map<number, number> {
  const found = new Map<number, number>();
  let last = 0;
  for (let at = first; at > last && at + vfio_info_cap_header.size <= bytes.length;) {
    const { id, next } = vfio_info_cap_header.decode(bytes, at);
    found.set(id, at);
    last = at;
    at = next;
  }
  return found;
}
