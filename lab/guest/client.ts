import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { identify } from '../../src/vfio/client/identify.ts';
import { syscall, withAddress } from '../../src/sys/libc.ts';
import type { Draft } from '../../src/v1/drafts/device.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import type { Child } from '../../src/vmm/child.ts';
import { poll, within } from '../../src/vmm/deadline.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import type { Mdev } from './mdev.ts';
import type { Mtty } from './mtty.ts';
import { imprintOf, Port, type PortState } from './uart.ts';
import { underShim } from './vm.ts';

/** Programs of ours in the place of a VMM: v1 under the shim, v2 on the device itself. */

const V1_CLIENT = fileURLToPath(new URL('./v1-client.js', import.meta.url));
const DRAFT_CLIENT = fileURLToPath(new URL('./draft-client.js', import.meta.url));
const V1_HEIR = fileURLToPath(new URL('./v1-heir.js', import.meta.url));

/** `GROUP:UUID`, as the device is named for our own programs. */
export const pathOf = ({ group, uuid }: Pick<Mdev, 'group' | 'uuid'>): string => `${group}:${uuid}`;

interface V1ClientResult {
  readonly accesses?: number;
  readonly killed?: readonly number[];
}

/** Has a v1 program under the shim save or restore a device. */
export async function runV1Client(
  bed: TestBed,
  name: string,
  args: readonly [action: 'save' | 'restore', file: string, ...options: readonly string[]],
  mtty: Mtty,
  path = pathOf(mtty),
): Promise<V1ClientResult & { readonly stderr: string }> {
  return resultOf(startUnderV1(bed, name, [V1_CLIENT, ...args, path]), name);
}

/** The same of a program of a draft, which has registers of its own. */
export async function runDraftClient(
  bed: TestBed,
  name: string,
  draft: Draft,
  args: readonly [action: 'save' | 'restore', file: string, ...options: readonly string[]],
  device: Mdev,
  run: readonly string[] = [],
): Promise<V1ClientResult & { readonly stderr: string }> {
  const [action, ...rest] = args;
  const program = [process.execPath, DRAFT_CLIENT, action, draft, ...rest, pathOf(device)];
  return resultOf(bed.spawn([...underShim(name, '--present', draft, ...run), ...program]), name);
}

async function resultOf(child: Child, name: string): Promise<V1ClientResult & { readonly stderr: string }> {
  const exit = await within(child.exited, 80_000, () => `${name} to end: ${child.stderr}`);
  assert.deepEqual(exit, { code: 0, signal: null }, child.stderr);
  return { ...(JSON.parse(child.stdout) as V1ClientResult), stderr: child.stderr };
}

/** Starts one of the two programs of v1-heir.ts, each in a run of its own. */
export function startV1Heir(bed: TestBed, name: string, args: readonly string[]): Child {
  return startUnderV1(bed, name, [V1_HEIR, ...args]);
}

function startUnderV1(bed: TestBed, name: string, args: readonly string[]): Child {
  return bed.spawn([...underShim(name, '--present', 'v1'), process.execPath, ...args]);
}

/** The line of JSON that a program prints, which may go on after it. */
export async function printed<T>(child: Child): Promise<T> {
  const line = await poll(
    () => (child.stdout.includes('\n') || child.exit !== undefined ? child.stdout : undefined),
    80_000,
    () => `a line of ${child.command.join(' ')}: ${child.stderr}`,
  );
  assert.match(line, /^\{.*\}\n$/, child.stderr);
  return JSON.parse(line) as T;
}

/** Every register access of a v1 program had a supervisor of its own. */
export function assertHarried({ accesses = 0, killed = [] }: V1ClientResult): void {
  assert.ok(accesses >= 8, `${accesses} accesses`);
  assert.equal(new Set(killed).size, accesses);
}

/** Gives a v2 device that nobody stands between to `use`; it is reset first, since an earlier user may have left a state. */
function onDevice<T>(mtty: Mtty, use: (device: V2Device) => T): T {
  using opened = openKernelDevice(pathOf(mtty));
  const found = identify(opened.port);
  if (found.protocol !== 'v2') throw new Error('the driver does not speak v2');
  found.device.reset();
  return use(found.device);
}

/** All of a running device's state, as a v2 program saves it; it runs on. */
export function saveNatively(mtty: Mtty): Buffer {
  return onDevice(mtty, (device) => {
    const pieces: Buffer[] = [];
    const saving = new V2Save(device, (piece) => void pieces.push(Buffer.from(piece)));
    saving.setup();
    while (saving.iterate() > 0);
    saving.complete();
    device.reset();
    return Buffer.concat(pieces);
  });
}

export function restoreNatively(mtty: Mtty, bytes: Uint8Array): void {
  onDevice(mtty, (device) => {
    const restoring = new V2Restore(device);
    restoring.setup();
    restoring.load(bytes);
    restoring.complete();
  });
}

/** Regions lie where vfio-pci has them. */
const regionOffset = (index: number): bigint => BigInt(index) << 40n;

/** A port of an mtty without a VM. */
class NativePort extends Port {
  readonly #fd: number;
  readonly #port: number;

  constructor(fd: number, port: number) {
    super();
    this.#fd = fd;
    this.#port = port;
  }

  read(register: number): Promise<number> {
    const byte = new Uint8Array(1);
    this.#access('pread64', byte, register);
    return Promise.resolve(byte[0] ?? 0);
  }

  write(register: number, value: number): Promise<void> {
    this.#access('pwrite64', Uint8Array.of(value), register);
    return Promise.resolve();
  }

  #access(call: 'pread64' | 'pwrite64', byte: Uint8Array, register: number): void {
    const offset = regionOffset(this.#port) + BigInt(register);
    withAddress(byte, (at) => syscall('UART', call, this.#fd, at, 1, offset)); // SAFETY: for its one byte
  }
}

/** Puts a pattern into all ports of a device that nobody uses. */
export async function imprintNatively(mtty: Mtty, seed: number): Promise<void> {
  using opened = openKernelDevice(pathOf(mtty));
  for (let port = 0; port < mtty.ports; port += 1) await new NativePort(opened.number, port).imprint(seed + port);
}

/** The same ports, as they are and as the pattern has them. */
export async function assertNatively(mtty: Mtty, seed: number): Promise<void> {
  using opened = openKernelDevice(pathOf(mtty));
  const states: PortState[] = [];
  const wanted: PortState[] = [];
  for (let port = 0; port < mtty.ports; port += 1) {
    states.push(await new NativePort(opened.number, port).state());
    wanted.push(imprintOf(seed + port));
  }
  assert.deepEqual(states, wanted);
}
