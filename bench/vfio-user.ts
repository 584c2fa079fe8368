import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  VFIO_USER_MIG_DATA_READ,
  VFIO_USER_REGION_READ,
  vfio_user_mig_data,
  vfio_user_region_access,
} from '../src/abi/vfio-user.ts';
import { V1RegisterAccess } from '../src/v1/registers.ts';
import { V1 } from '../src/v1/states.ts';
import { V2 } from '../src/v2/states.ts';
import { identifySocket } from '../src/vfio-user/client/identify-socket.ts';
import { Server } from '../src/vfio-user/client/server.ts';
import { SocketPort } from '../src/vfio-user/client/socket-port.ts';
import { findMigrationRegion } from '../src/vfio/client/device-info.ts';
import type { Benchmark, Row } from './benchmark.ts';
import type { Sample } from './paired.ts';

const MiB = 2 ** 20;
const STATE = 64 * MiB;
/** Clock ticks of /proc/PID/stat (getconf CLK_TCK), in milliseconds each. */
const TICK = 10;

/** A device of each protocol, behind its server. */
const DRIVERS = { v1: 'vendor-v1', v2: 'qat' } as const;
type Protocol = keyof typeof DRIVERS;
/** The protocol of the server that a client needs a bridge to. */
const OTHER = { v1: 'v2', v2: 'v1' } as const;

/** A server, and a proxy before it: processes of their own, as their client is. */
interface Served {
  readonly direct: string;
  readonly bridged: string;
  readonly server: ChildProcess;
  readonly proxy: ChildProcess;
}

async function started(cli: string, directory: string, protocol: Protocol): Promise<Served> {
  const [direct, bridged] = [join(directory, `${protocol}-server`), join(directory, `${protocol}-bridged`)];
  const start = async (args: readonly string[]): Promise<ChildProcess> => {
    const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    process.on('exit', () => child.kill());
    await once(child.stderr, 'data'); // it listens
    child.stderr.resume();
    child.unref(); // it ends with this process
    if (child.stderr instanceof Socket) child.stderr.unref();
    return child;
  };
  const server = await start(['serve', '--device', `${DRIVERS[protocol]},size=64M,seed=1`, '--listen', direct]);
  const proxy = await start(['proxy', '--present', OTHER[protocol], '--listen', bridged, '--connect', direct]);
  return { direct, bridged, server, proxy };
}

/** Milliseconds of processor that processes have had (proc(5): utime and stime of /proc/PID/stat). */
function processorTime(processes: readonly ChildProcess[]): number {
  return processes.reduce((sum, { pid }) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return sum + (Number(fields[11]) + Number(fields[12])) * TICK;
  }, 0);
}

/** How a client takes data: in messages of so many bytes, or, one of v1, from the file of the migration region, which QEMU maps. */
interface Way {
  readonly title: string;
  readonly transfer: number;
  readonly fromFile: boolean;
  /** What is to be kept of the rate of the server's own pair. */
  readonly target: number;
}

const MESSAGES: readonly Way[] = [
  { title: '1M a transfer', transfer: MiB, fromFile: false, target: 0.7 },
  { title: '32K a transfer', transfer: 32 * 1024, fromFile: false, target: 0.8 },
];
const FILE: Way = { title: '1M a buffer from the file', transfer: MiB, fromFile: true, target: 0.7 };
const WAYS: Readonly<Record<Protocol, readonly Way[]>> = { v1: [...MESSAGES, FILE], v2: MESSAGES };

/** Saves a device, as a client of either protocol does, and looks at nothing. */
function save(path: string, { transfer, fromFile }: Way): { readonly bytes: number; readonly ms: number } {
  const capabilities = { max_msg_fds: 8, max_data_xfer_size: transfer, migration: { pgsize: 4096 } };
  const server = Server.connect(path, { timeout: 60_000, capabilities });
  const port = new SocketPort(server);
  try {
    const device = identifySocket(port);
    if (device?.protocol === 'v2') {
      device.device.setState(V2.STOP_COPY);
      return timed(() => readV2(server, transfer));
    }
    const region = findMigrationRegion(port)?.index;
    if (device?.protocol !== 'v1' || region === undefined) throw new Error(`${path} does not migrate`);
    const registers = new V1RegisterAccess(device.device);
    registers.setDeviceState(V1.PRE_COPY);
    registers.setDeviceState(V1.STOP_COPY);
    const take = fromFile ? byFile(port, region) : byMessages(server, region, transfer);
    return timed(() => readV1(registers, take));
  } finally {
    port.close();
  }
}

function timed(move: () => number): { readonly bytes: number; readonly ms: number } {
  const begin = performance.now();
  const bytes = move();
  if (bytes < STATE) throw new Error(`a state of ${bytes} bytes, of ${STATE}`);
  return { bytes, ms: performance.now() - begin };
}

function readV2(server: Server, transfer: number): number {
  const body = vfio_user_mig_data.encode({ argsz: vfio_user_mig_data.size + transfer, size: transfer });
  for (let bytes = 0; ;) {
    const reply = server.link.request({ command: VFIO_USER_MIG_DATA_READ, name: 'MIG_DATA_READ', body });
    const { size } = vfio_user_mig_data.decode(reply);
    bytes += size;
    if (size < transfer) return bytes;
  }
}

/** Takes a buffer of a v1 device, by where it begins in the migration region and its size. */
type TakeBuffer = (begin: number, size: number) => void;

function readV1(registers: V1RegisterAccess, take: TakeBuffer): number {
  for (let bytes = 0; ;) {
    if (registers.pendingBytes() === 0) return bytes;
    const { offset, size } = registers.dataBuffer();
    take(offset, size);
    bytes += size;
  }
}

function byMessages(server: Server, region: number, transfer: number): TakeBuffer {
  return (begin, size) => {
    for (let done = 0; done < size; done += transfer) {
      const count = Math.min(transfer, size - done);
      const body = vfio_user_region_access.encode({ offset: BigInt(begin + done), region, count });
      server.link.request({ command: VFIO_USER_REGION_READ, name: 'REGION_READ', body });
    }
  };
}

/** Each buffer goes to memory of its own, as those of messages do. */
function byFile(port: SocketPort, index: number): TakeBuffer {
  return (begin, size) => {
    const read = port.read({ index, offset: 0n }, begin, new Uint8Array(size));
    if (read !== size) throw new Error('a short read');
  };
}

const protocols = Object.keys(DRIVERS) as Protocol[];
const keyOf = (client: Protocol, { title }: Way, of: Protocol): string => `${client} ${title} of ${of}`;
const cpuOf = (client: Protocol, { title }: Way): string => `${client} ${title} cpu`;

/**
 * What is to be kept is a part of what the server gives its own clients. The other pair is there to compare: one of v1 has four round trips a
 * buffer where v2 has one, and a device that has to put its data where the client finds it.
 */
const rows = protocols.flatMap((client) =>
  WAYS[client].flatMap((way): Row[] => {
    const title = `vfio-user: ${client} client, ${OTHER[client]} server, ${way.title}`;
    const target = { bound: 'at least', value: way.target } as const;
    const own = OTHER[client];
    return [
      { key: keyOf(client, way, own), title: `${title}, of a ${own} pair`, unit: 'MiB/s', compare: 'ratio', target },
      { key: keyOf(client, way, client), title: `${title}, of a ${client} pair`, unit: 'MiB/s', compare: 'ratio' },
      {
        key: cpuOf(client, way),
        title: `${title}: processor time of server and proxy for 64 MiB, of that server's with its own client`,
        unit: 'ms',
        compare: 'ratio',
      },
    ];
  }),
);

export const vfioUser: Benchmark = {
  name: 'vfio-user',
  about:
    '64 MiB of state through proxy, to a client of the other protocol, against the pairs of either protocol without it',
  rounds: 15,
  rows,
  async prepare({ cli }) {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-bench-'));
    process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
    const served = {
      v1: await started(cli, directory, 'v1'),
      v2: await started(cli, directory, 'v2'),
    };
    const measure = (path: string, way: Way, processes: readonly ChildProcess[]): [number, number] => {
      const before = processorTime(processes);
      const { bytes, ms } = save(path, way);
      return [bytes / MiB / (ms / 1000), Math.max(TICK, processorTime(processes) - before)];
    };
    const sample = (measured: (client: Protocol, way: Way, of: Protocol) => [number, number]): Sample => {
      const found: Record<string, number> = {};
      for (const client of protocols) {
        for (const way of WAYS[client]) {
          for (const of of protocols) {
            const [rate, cpu] = measured(client, way, of);
            found[keyOf(client, way, of)] = rate;
            if (of === OTHER[client]) found[cpuOf(client, way)] = cpu;
          }
        }
      }
      return found;
    };
    return {
      ours: () =>
        sample((client, way) => {
          const { bridged, server, proxy } = served[OTHER[client]];
          return measure(bridged, way, [server, proxy]);
        }),
      baseline: () =>
        sample((_, way, of) => {
          const { direct, server } = served[of];
          return measure(direct, way, [server]);
        }),
    };
  },
};
