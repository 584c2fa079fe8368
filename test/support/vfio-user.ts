import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import { afterEach } from 'vitest';
import type { ProxyOrder } from '../../src/cli/proxy.ts';
import type { ServeOrder } from '../../src/cli/serve.ts';
import type { ServiceEnd } from '../../src/cli/service.ts';
import type { MigratableDevice } from '../../src/device/migratable.ts';
import { createEventFd } from '../../src/sys/fd.ts';
import { syscall, withAddress } from '../../src/sys/libc.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { V1Save } from '../../src/v1/save.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { Server, type ConnectOptions } from '../../src/vfio-user/client/server.ts';
import { SocketPort } from '../../src/vfio-user/client/socket-port.ts';
import { identifySocket } from '../../src/vfio-user/client/identify-socket.ts';
import { poll, within } from '../../src/vmm/deadline.ts';
import type { Alteration } from './altering-relay.ts';

/** The thread of `serve` and `proxy`, as the command starts it. */
const WORKER = fileURLToPath(new URL('../../dist/cli/service-worker.js', import.meta.url));
const PATIENCE = 20_000;

const UNRECORDED: ServeOrder['recording'] = { recordLimit: '256M' };

/** Serving threads of a test, which are ended with it, and a directory for their sockets. */
export class Services {
  readonly directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  readonly #ends: (() => Promise<void>)[] = [];
  #count = 0;

  /** Serves a simulated device and returns the path of the socket. */
  serve(device: string, timeout = PATIENCE, recording: ServeOrder['recording'] = UNRECORDED): Promise<string> {
    const listen = this.#path('device');
    return this.#start({ command: 'serve', device, listen, timeout, verbose: false, recording });
  }

  proxy(connect: string, options: Partial<ProxyOrder> = {}): Promise<string> {
    const listen = this.#path('proxy');
    return this.#start({
      command: 'proxy',
      present: 'auto',
      roundTrip: false,
      segmentation: 'raw',
      dropPrecopy: false,
      dataSection: 65_536,
      listen,
      connect,
      timeout: PATIENCE,
      verbose: false,
      recording: UNRECORDED,
      ...options,
    });
  }

  /** Puts a program before a server that hands on what both say, with the descriptors of replies as `alter` says. */
  async relay(server: string): Promise<{ readonly path: string; readonly alter: (how: Alteration) => void }> {
    const path = this.#path('relay');
    const file = this.#path('alteration');
    const alter = (how: Alteration): void => {
      writeFileSync(`${file}.new`, JSON.stringify(how));
      renameSync(`${file}.new`, file);
    };
    alter({});
    await this.#program('altering-relay.ts', [path, server, file], [path, file]);
    return { path, alter };
  }

  /** Serves a device without a state, of which region 0 says how often it was saved and loaded, and how many bytes came. */
  async serveEmpty(protocol: 'v1' | 'v2'): Promise<string> {
    const path = this.#path('empty');
    await this.#program('empty-server.ts', [path, protocol], [path]);
    return path;
  }

  /** Starts a program that says when it listens; `left`: files that it leaves behind. */
  async #program(name: string, args: readonly string[], left: readonly string[]): Promise<void> {
    const program = fileURLToPath(new URL(name, import.meta.url));
    const child = spawn(process.execPath, ['--import', 'tsx', program, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const end = once(child, 'exit');
    this.#ends.push(async () => {
      child.kill();
      await within(end, PATIENCE, `${name} to end`);
      for (const each of left) rmSync(each, { force: true });
    });
    const failed = end.then(() => Promise.reject(new Error(`${name} has ended`)));
    failed.catch(() => {}); // it is told to
    await Promise.race([within(once(child.stdout, 'data'), PATIENCE, `${name} to listen`), failed]);
  }

  #path(what: string): string {
    this.#count += 1;
    return join(this.directory, `${what}-${this.#count}`);
  }

  async #start(order: ServeOrder | ProxyOrder): Promise<string> {
    const stop = createEventFd();
    const worker = new Worker(WORKER, { workerData: { ...order, stop: stop.number }, stderr: true });
    const end = new Promise<ServiceEnd | undefined>((resolve, reject) => {
      let last: ServiceEnd | undefined;
      worker.on('message', (message: ServiceEnd) => (last = message));
      worker.once('error', reject);
      worker.once('exit', () => resolve(last));
    });
    this.#ends.push(async () => {
      const one = BigUint64Array.of(1n);
      withAddress(one, (at) => syscall('stop', 'write', stop.number, at, 8));
      const last = await within(end, PATIENCE, `${order.command} to end`);
      stop.close();
      if (last?.failure !== undefined) throw new Error(last.failure.message);
    });
    const listening = poll(() => (existsSync(order.listen) ? true : undefined), PATIENCE, `${order.command} to listen`);
    await Promise.race([listening, end.then((last) => Promise.reject(new Error(JSON.stringify(last))))]);
    return order.listen;
  }

  /** Ends them, the last first. */
  async stop(): Promise<void> {
    for (const end of this.#ends.splice(0).toReversed()) await end();
  }

  /** Ends them, and says what they have left behind. */
  async end(): Promise<string[]> {
    await this.stop();
    const left = readdirSync(this.directory);
    rmSync(this.directory, { recursive: true, force: true });
    return left;
  }
}

/** Services for each test of a file; one that leaves a socket's file behind fails. */
export function useServices(): () => Services {
  let services: Services | undefined;
  afterEach(async () => {
    const ending = services;
    services = undefined;
    const left = (await ending?.end()) ?? [];
    if (left.length > 0) throw new Error(`left behind: ${left.join()}`);
  });
  return () => (services ??= new Services());
}

/** A client of ours, which sees the device behind a socket as any command of the package does. */
export class TestClient {
  readonly server: Server;
  readonly port: SocketPort;
  #device: MigratableDevice | undefined;

  constructor(path: string, options: Partial<ConnectOptions> = {}) {
    this.server = Server.connect(path, { timeout: PATIENCE, ...options });
    this.port = new SocketPort(this.server);
  }

  get device(): MigratableDevice {
    this.#device ??= identifySocket(this.port);
    if (this.#device === undefined) throw new Error('the device does not migrate');
    return this.#device;
  }

  /** What the guest sees: the beginning of BAR0, by messages. */
  bar(size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    this.readBar(0, bytes);
    return bytes;
  }

  readBar(at: number, into: Uint8Array): void {
    for (let done = 0; done < into.length;)
      done += this.port.read({ index: 0, offset: 0n }, at + done, into.subarray(done));
  }

  /** Saves the device, which is stopped by then, as a VMM of its protocol does. */
  save(): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    this.saveTo((piece) => void pieces.push(piece.slice()));
    return pieces;
  }

  /** The same, of which each piece is told as it comes. */
  saveTo(sink: (piece: Uint8Array) => void): void {
    const { device } = this;
    const save = device.protocol === 'v2' ? new V2Save(device.device, sink) : new V1Save(v1Of(device), sink);
    save.setup();
    save.stop();
    save.complete();
  }

  restore(pieces: readonly Uint8Array[]): void {
    const restore = this.restoring();
    for (const piece of pieces) restore.load(piece);
    restore.complete();
  }

  /** Begins to load a state, of which each piece is to be told. */
  restoring(): V1Restore | V2Restore {
    const { device } = this;
    const restore = device.protocol === 'v2' ? new V2Restore(device.device) : new V1Restore(v1Of(device));
    restore.setup();
    return restore;
  }

  close(): void {
    this.port.close();
  }
}

function v1Of(device: MigratableDevice) {
  if (device.protocol !== 'v1') throw new Error(`the device speaks ${device.protocol}`);
  return device.device;
}
