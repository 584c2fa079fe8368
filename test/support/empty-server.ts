import {
  VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE,
  VFIO_USER_DEVICE_FEATURE,
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DEVICE_GET_REGION_INFO,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_MIG_DATA_READ,
  VFIO_USER_MIG_DATA_WRITE,
  VFU_PCI_DEV_MIGR_REGION_IDX,
  vfio_user_device_info,
} from '../../src/abi/vfio-user.ts';
import { vfio_region_info } from '../../src/abi/vfio-device.ts';
import { VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../../src/abi/vfio-v2.ts';
import { createEventFd } from '../../src/sys/fd.ts';
import { SocketFile } from '../../src/sys/socket-file.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1Region, type V1Registers } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2StateMachine } from '../../src/v2/state-machine.ts';
import { addedRegionInfo } from '../../src/vfio/server/added-region.ts';
import { refuse } from '../../src/vfio/server/refuse.ts';
import type { Client } from '../../src/vfio-user/server/client.ts';
import { answerFeature } from '../../src/vfio-user/server/device-feature.ts';
import { infoArgument } from '../../src/vfio-user/server/device-info.ts';
import { answerRead, answerWrite } from '../../src/vfio-user/server/migration-data.ts';
import { answerAccess, REGION_ACCESSES, type RegionMemory } from '../../src/vfio-user/server/region-access.ts';
import { serve, type Service } from '../../src/vfio-user/server/serve.ts';
import type { Message } from '../../src/vfio-user/wire/message.ts';

/*
 * A program that serves a device without a state: its driver has nothing to save, and takes nothing. Arguments: where it listens, and v1 or v2.
 * What was asked of it is in its region 0: how often it was saved and loaded to the end, and how many bytes came.
 */

const NOTHING = new Uint8Array(0);
const counts = new Uint32Array(4);
const [SAVED, LOADED, BYTES] = [0, 1, 2] as const;
const count = (place: number, by = 1): void => void (counts[place] = (counts[place] ?? 0) + by);

class EmptyV2 extends V2StateMachine {
  constructor() {
    super(VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY);
  }

  stopCopyLength(): number {
    return 0;
  }

  protected read(): number {
    if (this.getState() === 3) count(SAVED); // STOP_COPY: the end of the data
    return 0;
  }

  protected write(from: Uint8Array): number {
    count(BYTES, from.length);
    return from.length;
  }

  protected override leaving(from: number, to: number): void {
    if (from === 4 && to === 1) count(LOADED); // RESUMING to STOP
  }
}

/** libvfio-user's states (until September 2023, lib/migration_priv.h: migr_states), and what it does with a device that has no data left. */
class EmptyV1 implements V1Registers {
  #state: number = V1.RUNNING;
  #hasData = true;

  readDeviceState(): number {
    return this.#state;
  }

  writeDeviceState(value: number): void {
    const next: Readonly<Record<number, readonly number[]>> = {
      [V1.RUNNING]: [V1.STOP, V1.RUNNING, V1.STOP_COPY, V1.PRE_COPY, V1.RESUMING],
      [V1.PRE_COPY]: [V1.STOP, V1.STOP_COPY, V1.RUNNING],
      [V1.STOP_COPY]: [V1.STOP, V1.RUNNING, V1.STOP_COPY],
      [V1.STOP]: [V1.RUNNING, V1.STOP],
      [V1.RESUMING]: [V1.RUNNING, V1.RESUMING],
    };
    if (next[this.#state]?.includes(value) !== true) throw refuse('EINVAL', `device_state: ${this.#state} to ${value}`);
    if (this.#state === V1.RESUMING && value === V1.RUNNING) count(LOADED);
    this.#state = value;
    this.#hasData = true;
  }

  readPendingBytes(): number {
    if (this.#state === V1.STOP_COPY && this.#hasData) count(SAVED);
    this.#hasData = false;
    return 0;
  }

  readDataOffset(): number {
    throw refuse('EINVAL', 'data_offset: no data');
  }

  readDataSize(): number {
    throw refuse('EINVAL', 'data_size: no data');
  }

  writeDataSize(size: number): void {
    count(BYTES, size);
  }

  reset(): void {
    this.#state = V1.RUNNING;
  }
}

class EmptyService implements Service, RegionMemory {
  readonly #v2: EmptyV2 | undefined;
  readonly #region: V1Device | undefined;

  constructor(protocol: string) {
    if (protocol === 'v2') this.#v2 = new EmptyV2();
    else this.#region = new V1Region(new EmptyV1(), new Uint8Array(65_536));
  }

  connect(): Readonly<Record<string, unknown>> {
    return { max_msg_fds: 8, max_data_xfer_size: VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE, migration: { pgsize: 4096 } };
  }

  answer(client: Client, message: Message): void {
    client.reply(message, this.#answer(message));
  }

  #answer(message: Message): Uint8Array {
    const { command, body } = message;
    if (REGION_ACCESSES.has(command)) return answerAccess(message, this, VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE);
    switch (command) {
      case VFIO_USER_DEVICE_GET_INFO:
        return vfio_user_device_info.encode({ argsz: 16, flags: 2, num_regions: this.#region === undefined ? 9 : 10 });
      case VFIO_USER_DEVICE_GET_REGION_INFO:
        return this.#regionInfo(body);
      case VFIO_USER_DEVICE_RESET:
        (this.#v2 ?? this.#region)?.reset();
        return NOTHING;
      default:
        return this.#migration(message);
    }
  }

  #regionInfo(body: Uint8Array): Uint8Array {
    const { index } = vfio_region_info.decode(body);
    const { size } = vfio_region_info;
    if (this.#region === undefined || index !== VFU_PCI_DEV_MIGR_REGION_IDX) {
      return vfio_region_info.encode({
        argsz: size,
        index,
        size: index === 0 ? BigInt(counts.byteLength) : 0n,
        flags: 1,
      });
    }
    const argument = infoArgument(body);
    const { dataSection } = this.#region;
    addedRegionInfo(argument, index, { generation: 'v1', offset: 0n, dataSection, mappable: false });
    return argument.answer;
  }

  #migration({ command, body }: Message): Uint8Array {
    const device = this.#v2;
    if (device === undefined) throw refuse('EINVAL', `command ${command}`);
    const data = { device, limit: VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE, wait: () => {} };
    switch (command) {
      case VFIO_USER_DEVICE_FEATURE:
        return answerFeature(body, device, undefined);
      case VFIO_USER_MIG_DATA_READ:
        return answerRead(body, data);
      case VFIO_USER_MIG_DATA_WRITE:
        answerWrite(body, data);
        return NOTHING;
      default:
        throw refuse('EINVAL', `command ${command}`);
    }
  }

  readRegion(index: number, offset: number, into: Uint8Array): void {
    if (index === VFU_PCI_DEV_MIGR_REGION_IDX && this.#region !== undefined) this.#region.read(offset, into);
    else if (index === 0) into.set(new Uint8Array(counts.buffer).subarray(offset, offset + into.length));
    else throw refuse('EINVAL', `region ${index}`);
  }

  writeRegion(index: number, offset: number, from: Uint8Array): void {
    if (index !== VFU_PCI_DEV_MIGR_REGION_IDX || this.#region === undefined) throw refuse('EINVAL', `region ${index}`);
    this.#region.write(offset, from);
  }

  work(): number {
    return Number.POSITIVE_INFINITY;
  }

  disconnect(): void {
    // whatever state it is in: the next client finds that
  }
}

const [, , listen = '', protocol = ''] = process.argv;
using stop = createEventFd();
const file = new SocketFile(listen);
process.stdout.write('listens\n');
serve(file, new EmptyService(protocol), {
  timeout: 20_000,
  stop: { fd: stop.number, heeded: true },
  log: () => {},
});
