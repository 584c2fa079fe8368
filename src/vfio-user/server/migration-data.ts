import { vfio_user_mig_data } from '../../abi/vfio-user.ts';
import { hasErrno, isNotReady } from '../../error.ts';
import { readData, writeData } from '../../v2/data-fd.ts';
import type { V2DataSession, V2Device } from '../../v2/device.ts';
import { isSaving, isPreCopy, V2, v2StateName } from '../../v2/states.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { whenReady, type WaitForDevice } from '../../wait.ts';
import { replyBody } from './body.ts';

const HEADER = vfio_user_mig_data.size;

/** What the two requests have to do with. */
export interface MigrationData {
  readonly device: V2Device;
  /** The most that one request moves: what the client takes. */
  readonly limit: number;
  /** Is called if the device says "not yet". */
  readonly wait: WaitForDevice;
}

/**
 * `VFIO_USER_MIG_DATA_READ`: the reply's body, as long as was asked for, with zeros behind the data. Less data than that is the end of
 * the stream, or of what there is in pre-copy: so the device is read until there is no more.
 */
export function answerRead(body: Uint8Array, { device, limit, wait }: MigrationData): Uint8Array {
  const size = askedFor(body, limit, 'MIG_DATA_READ');
  const state = whenReady(() => device.getState(), wait);
  const session = isSaving(state) ? device.openSession() : undefined;
  if (session === undefined) throw refuse('EINVAL', `MIG_DATA_READ: the device is in ${v2StateName(state)}`);
  const reply = replyBody(HEADER + size);
  const filled = fill(session, reply.subarray(HEADER), isPreCopy(state), wait);
  reply.fill(0, HEADER + filled);
  vfio_user_mig_data.encode({ argsz: HEADER + filled, size: filled }, reply);
  return reply;
}

function fill(session: V2DataSession, into: Uint8Array, isNow: boolean, wait: WaitForDevice): number {
  let filled = 0;
  while (filled < into.length) {
    const rest = into.subarray(filled);
    let length: number;
    try {
      length = isNow ? readData(session, rest) : whenReady(() => readData(session, rest), wait);
    } catch (error) {
      // in pre-copy nobody waits: what is not there yet comes later
      if (isNow && (hasErrno(error, 'ENOMSG') || isNotReady(error))) break;
      throw error; // whatever came before: a reply with less than was asked for would be the end of the stream
    }
    if (length === 0) break;
    filled += length;
  }
  return filled;
}

/** `VFIO_USER_MIG_DATA_WRITE`: all of the data is taken, or it fails. */
export function answerWrite(body: Uint8Array, { device, limit, wait }: MigrationData): void {
  const size = askedFor(body, limit, 'MIG_DATA_WRITE');
  if (body.length < HEADER + size)
    throw refuse('EINVAL', `MIG_DATA_WRITE: ${body.length} bytes have no ${size} of data`);
  const state = whenReady(() => device.getState(), wait);
  const session = state === V2.RESUMING ? device.openSession() : undefined;
  if (session === undefined) throw refuse('EINVAL', `MIG_DATA_WRITE: the device is in ${v2StateName(state)}`);
  for (let done = HEADER; done < HEADER + size;) {
    done += whenReady(() => writeData(session, body.subarray(done, HEADER + size)), wait);
  }
}

function askedFor(body: Uint8Array, limit: number, what: string): number {
  if (body.length < HEADER) throw refuse('EINVAL', `${what}: ${body.length} bytes`);
  const { argsz, size } = vfio_user_mig_data.decode(body);
  if (size > limit || argsz < HEADER + size)
    throw refuse('EINVAL', `${what}: ${size} bytes, argsz ${argsz}, limit ${limit}`);
  return size;
}
