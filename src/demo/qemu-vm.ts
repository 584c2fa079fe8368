import { basename } from 'node:path';
import { ShimError } from '../error.ts';
import { v1StateName } from '../v1/states.ts';
import { poll } from './deadline.ts';
import { Dialogue } from './dialogue.ts';
import { qemuCommand, SLOT, tracedState, type Qemu } from './qemu.ts';
import { ShimmedVmm, type EndName, type Stage } from './shimmed.ts';

/** Bytes per request to qtest. */
const CHUNK = 256 * 1024;
/** The BIOS tick counter at 40:6C: it counts once the firmware has placed the devices and started the timer. */
const BIOS_TICKS = '0x46c';

interface PciBus {
  readonly devices: readonly {
    readonly slot: number;
    readonly regions: readonly { readonly bar: number; readonly address: number; readonly size: number }[];
  }[];
}

export interface MigrationInfo {
  readonly status?: string;
  readonly 'error-desc'?: string;
  /** In milliseconds. */
  readonly downtime?: number;
}

/** A QEMU under `vfio-shim run`: its monitor (QMP), and guest-physical memory as its guest sees it (qtest). */
export class QemuVm {
  readonly vmm: ShimmedVmm;
  readonly #monitor: Dialogue;
  readonly #qtest: Dialogue;

  private constructor(vmm: ShimmedVmm, monitor: Dialogue, qtest: Dialogue) {
    this.vmm = vmm;
    this.#monitor = monitor;
    this.#qtest = qtest;
  }

  /** Starts it and waits until its machine is built. */
  static async start(stage: Stage, qemu: Qemu, name: EndName, device: string): Promise<QemuVm> {
    const sockets = { monitor: stage.workplace.path(`${name}.qmp`), qtest: stage.workplace.path(`${name}.qtest`) };
    let last: number | undefined;
    const vmm = new ShimmedVmm(stage, {
      name,
      device,
      command: (sysfsdev) => qemuCommand(qemu, { ...sockets, sysfsdev, incoming: name === 'destination' }),
      shown: `${basename(qemu.path)} -device vfio-pci,sysfsdev=...,x-enable-migration=on ...`,
      onError: (line) => {
        const state = tracedState(line);
        if (state === undefined) return false;
        if (state !== last) stage.story.step(name, `QEMU wrote device_state ${state}, ${v1StateName(state)}`);
        last = state;
        return true;
      },
    });
    const gone = (): boolean => vmm.program.fate !== undefined;
    const isAnswer = (line: string): boolean => !line.startsWith('{"timestamp"');
    const monitor = await Dialogue.open(sockets.monitor, { name: `monitor of the ${name}`, isAnswer, gone });
    await monitor.next('a greeting');
    const vm = new QemuVm(vmm, monitor, await Dialogue.open(sockets.qtest, { name: `qtest of the ${name}`, gone }));
    await vm.execute('qmp_capabilities');
    return vm;
  }

  async execute<T>(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<T> {
    const answer = await this.#monitor.ask(JSON.stringify({ execute: command, arguments: args }));
    const { return: value, error } = JSON.parse(answer) as { return?: T; error?: { desc: string } };
    if (error !== undefined) throw new ShimError('ERR_TARGET', `${this.vmm.program.name}: ${command}: ${error.desc}`);
    return value as T;
  }

  /** Where the guest sees BAR0, once its firmware has placed it. */
  async bar(): Promise<{ address: number; size: number }> {
    const place = async (): Promise<{ address: number; size: number } | undefined> => {
      if (Number(await this.#guest(`readl ${BIOS_TICKS}`)) === 0) return undefined;
      const buses = await this.execute<PciBus[]>('query-pci');
      const device = buses.flatMap(({ devices }) => devices).find(({ slot }) => slot === SLOT);
      return device?.regions.find(({ bar, address }) => bar === 0 && address > 0);
    };
    return poll(place, 20_000, `${this.vmm.program.name}: a guest address for BAR0`);
  }

  async write(address: number, data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; at += CHUNK) {
      const piece = Buffer.from(data.buffer, data.byteOffset + at, Math.min(CHUNK, data.length - at));
      await this.#guest(`b64write 0x${(address + at).toString(16)} ${piece.length} ${piece.toString('base64')}`);
    }
  }

  async read(address: number, length: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let at = 0; at < length; at += CHUNK) {
      const piece = await this.#guest(`b64read 0x${(address + at).toString(16)} ${Math.min(CHUNK, length - at)}`);
      pieces.push(Buffer.from(piece, 'base64'));
    }
    return Buffer.concat(pieces);
  }

  /** Waits until the migration is in this status. */
  async migration(wanted: string): Promise<MigrationInfo> {
    const ask = async (): Promise<MigrationInfo | undefined> => {
      const info = await this.execute<MigrationInfo>('query-migrate');
      if (info.status === wanted) return info;
      if (info.status !== 'failed' && info.status !== 'cancelled') return undefined;
      const why = info['error-desc'] ?? 'QEMU gives no reason';
      throw new ShimError('ERR_TARGET', `${this.vmm.program.name}: migration ${info.status}: ${why}`);
    };
    return poll(ask, 20_000, `${this.vmm.program.name}: migration ${wanted}`);
  }

  /** Ends QEMU, which may be faster than its answer. */
  async quit(): Promise<void> {
    await this.execute('quit').catch(() => {});
    this.#monitor.close();
    this.#qtest.close();
  }

  async #guest(request: string): Promise<string> {
    const [verdict, ...rest] = (await this.#qtest.ask(request)).split(' ');
    if (verdict === 'OK') return rest.join(' ');
    throw new ShimError('ERR_TARGET', `${this.vmm.program.name}: qtest: ${[verdict, ...rest].join(' ')}`);
  }
}
