import {
  VFIO_USER_MIG_DATA_WRITE,
  VFIO_USER_REGION_WRITE,
  vfio_user_mig_data,
  vfio_user_region_access,
} from '../../abi/vfio-user.ts';
import { VFIO_DEVICE_FEATURE_MASK, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE } from '../../abi/vfio-v2.ts';
import { VFIO_DEVICE_FEATURE_SET, vfio_device_feature, vfio_device_feature_mig_state } from '../../abi/vfio-v2.ts';
import { isV2State } from '../../v2/states.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { siftReplyFds } from '../client/reply-fds.ts';
import { MOST_SENT, type Server } from '../client/server.ts';
import type { Client } from '../server/client.ts';
import { inBody } from '../server/body.ts';
import { accessIn, accessReply } from '../server/region-access.ts';
import { checked } from '../wire/link.ts';
import { closeFds, type Message } from '../wire/message.ts';
import { MAX_BODY } from '../wire/connection.ts';

const NOTHING = new Uint8Array(0);
/** What a command that is not known to be longer may have: a struct and the most data. */
const LONGEST = MOST_SENT + 64;

const nameOf = (command: number): string => `command ${command}`;

/** Has a server carry out a client's command, and tells the client what it has answered. */
export function forward(server: Server, client: Client, message: Message): void {
  const reply = asked(server, message);
  if (reply === undefined) return;
  try {
    client.reply(message, reply.body, numbersOf(reply));
  } finally {
    closeFds(reply);
  }
}

/**
 * The server's answer to a client's command; `undefined` if none is wanted. Its body is the server's, whatever it has in it. Throws
 * `ERR_SYSCALL` if the server refuses.
 */
export function asked(server: Server, message: Message): Message | undefined {
  const { command, body } = message;
  if (body.length > LONGEST) return inPieces(server, message);
  if (message.fds.length > server.version.maxMsgFds) {
    throw refuse(
      'EINVAL',
      `command ${command}: ${message.fds.length} descriptors, the server takes ${server.version.maxMsgFds}`,
    );
  }
  const request = { command, name: nameOf(command), body, fds: numbersOf(message) };
  if (message.noReply) {
    server.link.post(request);
    return undefined;
  }
  const reply = server.link.ask(request);
  try {
    siftReplyFds(reply, command, server.mostFds);
    return checked(reply, request.name, server.link.connection.peer);
  } catch (error) {
    closeFds(reply);
    throw error;
  }
}

function numbersOf({ fds }: Pick<Message, 'fds'>): number[] {
  return fds.flatMap((fd) => (fd === undefined ? [] : [fd.number]));
}

/** A command with more data than a server is sent at once. */
function inPieces(server: Server, message: Message): Message {
  switch (message.command) {
    case VFIO_USER_REGION_WRITE:
      return { ...message, fds: [], body: writeRegion(server, message) };
    case VFIO_USER_MIG_DATA_WRITE:
      writeData(server, message.body);
      return { ...message, fds: [], body: NOTHING };
    default:
      throw refuse('E2BIG', `command ${message.command}: ${message.body.length} bytes`);
  }
}

function writeRegion(server: Server, message: Message): Uint8Array {
  const access = accessIn(message, MAX_BODY);
  const head = vfio_user_region_access.size;
  for (let done = 0; done < access.count; done += MOST_SENT) {
    const data = message.body.subarray(head + done, Math.min(head + done + MOST_SENT, head + access.count));
    const body = new Uint8Array(head + data.length);
    accessReply({ ...access, offset: access.offset + done, count: data.length }, body);
    body.set(data, head);
    server.link.request({ command: VFIO_USER_REGION_WRITE, name: 'VFIO_USER_REGION_WRITE', body });
  }
  return accessReply(access);
}

function writeData(server: Server, body: Uint8Array): void {
  const head = vfio_user_mig_data.size;
  const { size } = inBody(vfio_user_mig_data, body);
  if (head + size > body.length) throw refuse('EINVAL', `MIG_DATA_WRITE: ${size} bytes in ${body.length}`);
  for (let done = 0; done < size; done += MOST_SENT) {
    const data = body.subarray(head + done, head + Math.min(done + MOST_SENT, size));
    const piece = new Uint8Array(head + data.length);
    vfio_user_mig_data.encode({ argsz: piece.length, size: data.length }, piece);
    piece.set(data, head);
    server.link.request({ command: VFIO_USER_MIG_DATA_WRITE, name: 'VFIO_USER_MIG_DATA_WRITE', body: piece });
  }
}

/**
 * Throws `EINVAL` for a state that no v2 server must be asked for: of libvfio-user's, 8 is looked up behind the end of a table (efd091b,
 * lib/migration.c: migration_set_state).
 */
export function checkFeature(body: Uint8Array): void {
  const { flags } = inBody(vfio_device_feature, body);
  const isState = (flags & VFIO_DEVICE_FEATURE_MASK) === VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
  if (!isState || (flags & VFIO_DEVICE_FEATURE_SET) === 0) return;
  if (body.length === vfio_device_feature.size) return; // a PROBE has no state
  const { device_state } = inBody(vfio_device_feature_mig_state, body, vfio_device_feature.size);
  if (!isV2State(device_state)) throw refuse('EINVAL', `MIG_DEVICE_STATE: no state ${device_state}`);
}
