import {
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
  VFIO_USER_REGION_WRITE_MULTI,
  vfio_user_region_access,
  vfio_user_write_multi,
  vfio_user_write_one,
} from '../../abi/vfio-user.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { Message } from '../wire/message.ts';
import { inBody, replyBody } from './body.ts';

export const REGION_ACCESSES: ReadonlySet<number> = new Set([
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
  VFIO_USER_REGION_WRITE_MULTI,
]);

/** The regions of a device, by index. Throws `EINVAL` for what a region has not. */
export interface RegionMemory {
  readRegion(index: number, offset: number, into: Uint8Array): void;
  writeRegion(index: number, offset: number, from: Uint8Array): void;
}

const HEAD = vfio_user_region_access.size;
/** What QEMU sends at most at once (hw/vfio-user/protocol.h: VFIO_USER_MULTI_MAX). */
const MOST_WRITES = 200;

/** Which bytes of which region an access is about. */
export interface RegionAccess {
  readonly region: number;
  readonly offset: number;
  readonly count: number;
}

/** What REGION_READ and REGION_WRITE are about, with the data there that a write has. `limit`: the most bytes of one access. */
export function accessIn({ command, body }: Pick<Message, 'command' | 'body'>, limit: number): RegionAccess {
  const { offset, region, count } = inBody(vfio_user_region_access, body);
  const given = body.length - HEAD;
  if (count > limit || (command === VFIO_USER_REGION_WRITE && given !== count)) {
    throw refuse('EINVAL', `region ${region}: an access of ${count} bytes, with ${given}, limit ${limit}`);
  }
  return { region, offset: offsetOf(offset, region), count };
}

/** The writes of a REGION_WRITE_MULTI, each with its data. */
export function writesIn(body: Uint8Array): (RegionAccess & { readonly data: Uint8Array })[] {
  const { wr_cnt } = inBody(vfio_user_write_multi, body);
  const { size } = vfio_user_write_one;
  const head = vfio_user_write_multi.size;
  if (wr_cnt > MOST_WRITES || body.length < head + Number(wr_cnt) * size) {
    throw refuse('EINVAL', `REGION_WRITE_MULTI: ${wr_cnt} writes in ${body.length} bytes`);
  }
  return Array.from({ length: Number(wr_cnt) }, (_, n) => {
    const at = head + n * size;
    const { offset, region, count } = vfio_user_write_one.decode(body, at);
    const [, dataAt] = vfio_user_write_one.fields.data;
    if (count > size - dataAt) throw refuse('EINVAL', `REGION_WRITE_MULTI: a write of ${count} bytes`);
    const data = body.subarray(at + dataAt, at + dataAt + count);
    return { region, offset: offsetOf(offset, region), count, data };
  });
}

function offsetOf(offset: bigint, region: number): number {
  if (offset <= Number.MAX_SAFE_INTEGER) return Number(offset);
  throw refuse('EINVAL', `region ${region}: no offset ${offset}`);
}

/** Carries an access out: the reply's body. */
export function answerAccess(message: Message, memory: RegionMemory, limit: number): Uint8Array {
  if (message.command === VFIO_USER_REGION_WRITE_MULTI) {
    const writes = writesIn(message.body);
    for (const { region, offset, data } of writes) memory.writeRegion(region, offset, data);
    return vfio_user_write_multi.encode({ wr_cnt: BigInt(writes.length) });
  }
  return answerOne(accessIn(message, limit), message, memory);
}

/** As answerAccess(), of what accessIn() has found. */
export function answerOne(access: RegionAccess, { command, body }: Message, memory: RegionMemory): Uint8Array {
  if (command === VFIO_USER_REGION_WRITE) {
    if (access.count > 0) memory.writeRegion(access.region, access.offset, body.subarray(HEAD));
    return accessReply(access);
  }
  const reply = replyBody(HEAD + access.count);
  accessReply(access, reply);
  if (access.count > 0) memory.readRegion(access.region, access.offset, reply.subarray(HEAD));
  return reply;
}

/** The struct of a reply, without data. */
export function accessReply({ region, offset, count }: RegionAccess, into?: Uint8Array): Uint8Array {
  return vfio_user_region_access.encode({ region, offset: BigInt(offset), count }, into);
}
