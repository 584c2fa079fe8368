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

const TRANSFERS = { '1M': MiB, '32K': 32 * 1024 } as const;
const PAIRS = {
  v1: { title: 'v1 client, v2 server', driver: 'qat', server: 'v2' },
  v2: { title: 'v2 client, v1 server', driver: 'vendor-v1', server: 'v1' },
} as const;
type Protocol = keyof typeof PAIRS;

/** A device that is served, and a proxy before it: processes of their own, as their client is. */
interface Served {
  readonly direct: string;
  readonly bridged: string;
  readonly processes: readonly ChildProcess[];
}

async function started(cli: string, directory: string, client: Protocol): Promise<Served> {
  const { driver } = PAIRS[client];
  const [direct, bridged] = [join(directory, `${client}-server`), join(directory, `${client}-proxy`)];
  const start = async (args: readonly string[]): Promise<ChildProcess> => {
    const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    process.on('exit', () => child.kill());
    await once(child.stderr, 'data'); // it listens
    child.stderr.resume();
    child.unref(); // it ends with this process
    if (child.stderr instanceof Socket) child.stderr.unref();
    return child;
  };
  const serve = await start(['serve', '--device', `${driver},size=64M,seed=1`, '--listen', direct]);
  const proxy = await start(['proxy', '--present', client, '--listen', bridged, '--connect', direct]);
  return { direct, bridged, processes: [serve, proxy] };
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

/** Saves a device in transfers of so many bytes, as a client of either protocol does, and looks at nothing. */
function save(path: string, transfer: number): { readonly bytes: number; readonly ms: number } {
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
    return timed(() => readV1(server, registers, region, transfer));
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

function readV1(server: Server, registers: V1RegisterAccess, region: number, transfer: number): number {
  for (let bytes = 0; ;) {
    if (registers.pendingBytes() === 0) return bytes;
    const { offset: begin, size } = registers.dataBuffer();
    for (let done = 0; done < size; done += transfer) {
      const count = Math.min(transfer, size - done);
      const body = vfio_user_region_access.encode({ offset: BigInt(begin + done), region, count });
      server.link.request({ command: VFIO_USER_REGION_READ, name: 'REGION_READ', body });
    }
    bytes += size;
  }
}

const keyOf = (client: Protocol, transfer: keyof typeof TRANSFERS): string => `${client} ${transfer}`;
const clients = Object.keys(PAIRS) as Protocol[];
const transfers = Object.keys(TRANSFERS) as (keyof typeof TRANSFERS)[];

const rows = clients.flatMap((client) =>
  transfers.flatMap((transfer): Row[] => [
    {
      key: keyOf(client, transfer),
      title: `vfio-user: ${PAIRS[client].title}, ${transfer} a transfer`,
      unit: 'MiB/s',
      compare: 'ratio',
      target: { bound: 'at least', value: transfer === '1M' ? 0.7 : 0.8 },
    },
    {
      key: `${keyOf(client, transfer)} cpu`,
      title: `vfio-user: ${PAIRS[client].title}, ${transfer}: processor time of server and proxy for 64 MiB`,
      unit: 'ms',
      compare: 'ratio',
    },
  ]),
);

export const vfioUser: Benchmark = {
  name: 'vfio-user',
  about: "64 MiB of state through proxy, to a client of the other protocol, against the server's own clients",
  rounds: 7,
  rows,
  async prepare({ cli }) {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-bench-'));
    process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
    const served = new Map<Protocol, Served>();
    for (const client of clients) served.set(client, await started(cli, directory, client));
    const sample = (pathOf: (of: Served) => string): Sample => {
      const found: Record<string, number> = {};
      for (const [client, of] of served) {
        for (const transfer of transfers) {
          const before = processorTime(of.processes);
          const { bytes, ms } = save(pathOf(of), TRANSFERS[transfer]);
          found[keyOf(client, transfer)] = bytes / MiB / (ms / 1000);
          found[`${keyOf(client, transfer)} cpu`] = Math.max(TICK, processorTime(of.processes) - before);
        }
      }
      return found;
    };
    return { ours: () => sample(({ bridged }) => bridged), baseline: () => sample(({ direct }) => direct) };
  },
};
