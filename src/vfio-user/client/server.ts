import { VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE, VFIO_USER_VERSION } from '../../abi/vfio-user.ts';
import { ShimError } from '../../error.ts';
import { carriesMessages, connectNow } from '../../sys/message-socket.ts';
import { PAGE_SIZE } from '../../sys/libc.ts';
import { sleepUntilReady } from '../../wait.ts';
import { Connection, OFFERED_FDS, type Stop } from '../wire/connection.ts';
import { checked, Link, type Beside } from '../wire/link.ts';
import { closeFds, takeFd, type Message } from '../wire/message.ts';
import { decodeVersion, encodeVersion, MAJOR, MINOR, type Version } from '../wire/version.ts';

/**
 * The most data of a message to a server. libvfio-user does not wait for all of a message's body (lib/tran_sock.c: tran_sock_recv_body), and a
 * socket gives at once what fits into its first buffer, 36,544 bytes.
 */
export const MOST_SENT = 32 * 1024;

export interface ConnectOptions {
  /** How long the server may take for an answer, in milliseconds. */
  readonly timeout: number;
  readonly stop?: Stop | undefined;
  /** What this side tells of itself, besides the twin socket. */
  readonly capabilities?: Readonly<Record<string, unknown>>;
  /** Answers the server's commands, on whichever socket they come. Without it they are refused. */
  readonly onCommand?: (command: Message, link: Link) => void;
  /** Who is attended to as well while the server is asked something. */
  readonly beside?: Beside;
}

/** A server, as its client sees it. */
export class Server {
  readonly link: Link;
  readonly version: Version;
  /** Where the server's own commands come, if it has sent a socket for them. */
  readonly twin: Link | undefined;
  /** The most bytes that this side has said to take. */
  readonly #told: number;
  /** The most descriptors that it has said to take with a message. */
  readonly mostFds: number;

  private constructor(link: Link, version: Version, told: Version, twin: Link | undefined, beside?: Beside) {
    this.#told = Math.max(1, told.maxDataXferSize);
    this.mostFds = told.maxMsgFds;
    this.link = link;
    const attended = [twin, beside].filter((each) => each !== undefined);
    link.beside = () => attended;
    this.version = version;
    this.twin = twin;
  }

  /** Connects to a server and finds out what it takes. It may first have to let another client go. */
  static connect(path: string, options: ConnectOptions): Server {
    const connection = connected(path, options);
    try {
      return Server.#greet(connection, options);
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  static #greet(connection: Connection, options: ConnectOptions): Server {
    const { capabilities = OWN, onCommand = refuseCommand } = options;
    const link: Link = new Link(connection, (message) => onCommand(message, link));
    const isTwinTaken = options.onCommand !== undefined;
    const offered = isTwinTaken ? { ...capabilities, twin_socket: { supported: true } } : capabilities;
    const body = encodeVersion(MINOR, offered);
    const reply = link.ask({ command: VFIO_USER_VERSION, name: 'VFIO_USER_VERSION', body });
    try {
      const version = decodeVersion(checked(reply, 'VFIO_USER_VERSION', connection.peer).body);
      if (version.major !== MAJOR) {
        throw new ShimError('ERR_DEVICE', `vfio-user: the server speaks version ${version.major}.${version.minor}`, {
          errno: 'EPROTO',
        });
      }
      const told = decodeVersion(body);
      const twin = isTwinTaken ? twinOf(reply, version, connection, options) : undefined;
      return new Server(link, version, told, twin, options.beside);
    } finally {
      closeFds(reply);
    }
  }

  /** The most bytes that one access of a region reads. */
  get readLimit(): number {
    return Math.max(1, Math.min(VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE, this.version.maxDataXferSize));
  }

  /** The most bytes that one access of a region writes. */
  get writeLimit(): number {
    return Math.min(MOST_SENT, this.readLimit);
  }

  /**
   * The most bytes of one MIG_DATA_READ: servers refuse more than their client says to take, also of those that it writes (190f85b,
   * lib/migration.c: handle_mig_data_read, handle_mig_data_write), whereas what one reads of a region is the server's limit alone.
   */
  get dataReadLimit(): number {
    return Math.min(this.#told, this.readLimit);
  }

  get dataWriteLimit(): number {
    return Math.min(this.#told, this.writeLimit);
  }

  /** The connections on which something may come. */
  get connections(): readonly Connection[] {
    return this.twin === undefined ? [this.link.connection] : [this.link.connection, this.twin.connection];
  }

  /** Deals with the server's own commands. */
  attend(): void {
    this.link.attend();
    this.twin?.attend();
  }

  /** True if a connection is at its end. */
  get isLost(): boolean {
    return this.connections.some(({ broken }) => broken !== undefined);
  }

  close(): void {
    this.twin?.connection.close();
    this.link.connection.close();
  }
}

const OWN = {
  max_msg_fds: OFFERED_FDS,
  max_data_xfer_size: VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE,
  migration: { pgsize: PAGE_SIZE },
} as const;

function connected(path: string, { timeout, stop }: ConnectOptions): Connection {
  const end = performance.now() + timeout;
  for (;;) {
    const fd = connectNow(path);
    if (fd !== undefined) return new Connection(fd, { peer: 'the server', timeout, stop });
    if (performance.now() > end) {
      throw new ShimError('ERR_DEVICE', `connect to ${path}: too many clients wait there`, { errno: 'ETIMEDOUT' });
    }
    sleepUntilReady();
  }
}

function twinOf(reply: Message, version: Version, main: Connection, options: ConnectOptions): Link | undefined {
  const { supported, fdIndex } = version.twinSocket;
  if (!supported) return undefined;
  const fd = takeFd(reply, fdIndex);
  if (fd === undefined) throw main.violated('has a twin socket, and has not sent it');
  if (!carriesMessages(fd.number)) {
    fd.close();
    throw main.violated('has sent what is no UNIX socket for its twin socket');
  }
  const { timeout, stop } = main;
  const connection = new Connection(fd, { peer: 'the server, on its twin socket,', timeout, stop });
  const twin: Link = new Link(connection, (message) => options.onCommand?.(message, twin));
  return twin;
}

const refuseCommand = (command: Message, link: Link): void => {
  closeFds(command);
  link.refuse(command, 'EINVAL');
};
