import { VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_GET_REGION_INFO } from '../../src/abi/vfio-ioctl.ts';
import { VFIO_DEVICE_FEATURE, VFIO_DEVICE_GET_INFO, VFIO_DEVICE_RESET } from '../../src/abi/vfio-ioctl.ts';
import { vfio_device_info, vfio_irq_info, vfio_region_info } from '../../src/abi/vfio-device.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_SET,
  VFIO_DEVICE_STATE,
  vfio_device_feature,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
} from '../../src/abi/vfio-v2.ts';
import { errnoName } from '../../src/abi/errno.ts';
import type { Struct, Fields, Values } from '../../src/abi/struct.ts';
import { openKernelDevice, type OpenedDevice } from '../../src/kernel/open.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { tryIoctl, withAddress } from '../../src/sys/libc.ts';
import type { Mtty } from './mtty.ts';

export type StateName = keyof typeof VFIO_DEVICE_STATE;

/** What a call returned: `0`, or `-1` and the errno's name, as the recorded probe has it. */
export type Answer = string;

/** A device of the kernel with nothing of ours between it and the caller but the structs. */
export class RawDevice implements Disposable {
  readonly #device: OpenedDevice;

  constructor(mtty: Mtty) {
    this.#device = openKernelDevice(`${mtty.group}:${mtty.uuid}`);
  }

  info(): Values<typeof vfio_device_info.fields> {
    return this.#ask(VFIO_DEVICE_GET_INFO, vfio_device_info, {}).values;
  }

  region(index: number): { answer: Answer; values: Values<typeof vfio_region_info.fields> } {
    return this.#ask(VFIO_DEVICE_GET_REGION_INFO, vfio_region_info, { index });
  }

  irq(index: number): { answer: Answer; values: Values<typeof vfio_irq_info.fields> } {
    return this.#ask(VFIO_DEVICE_GET_IRQ_INFO, vfio_irq_info, { index });
  }

  /** VFIO_DEVICE_FEATURE with `flags` and a payload of this size, which the kernel reads or writes. */
  feature(flags: number, payload: Uint8Array): Answer {
    const { size } = vfio_device_feature;
    const bytes = vfio_device_feature.encode(
      { argsz: size + payload.length, flags },
      new Uint8Array(size + payload.length),
    );
    bytes.set(payload, size);
    const answer = this.#ioctl(VFIO_DEVICE_FEATURE, bytes);
    payload.set(bytes.subarray(size));
    return answer;
  }

  /** Asks for a state, by number; `fd` is the new data descriptor, if there is one. */
  setState(device_state: number): { answer: Answer; fd: OwnedFd | undefined } {
    const payload = vfio_device_feature_mig_state.encode({ device_state, data_fd: -1 });
    const answer = this.feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, payload);
    const { data_fd } = vfio_device_feature_mig_state.decode(payload);
    return { answer, fd: answer === '0' && data_fd >= 0 ? new OwnedFd(data_fd) : undefined };
  }

  state(): StateName {
    const { device_state } = this.#get(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, vfio_device_feature_mig_state);
    const found = Object.entries(VFIO_DEVICE_STATE).find(([, number]) => number === device_state);
    if (found === undefined) throw new Error(`unknown state ${device_state}`);
    return found[0] as StateName;
  }

  dataSize(): number {
    return Number(this.#get(VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, vfio_device_feature_mig_data_size).stop_copy_length);
  }

  reset(): Answer {
    return answerOf(tryIoctl(this.#device.number, VFIO_DEVICE_RESET, 0));
  }

  [Symbol.dispose](): void {
    this.#device.close();
  }

  #get<F extends Fields>(feature: number, layout: Struct<F>): Values<F> {
    const payload = new Uint8Array(layout.size);
    const answer = this.feature(VFIO_DEVICE_FEATURE_GET | feature, payload);
    if (answer !== '0') throw new Error(`${layout.name}: ${answer}`);
    return layout.decode(payload);
  }

  #ask<F extends Fields>(
    request: number,
    layout: Struct<F>,
    values: Record<string, number>,
  ): { answer: Answer; values: Values<F> } {
    const bytes = layout.encode({ ...values, argsz: layout.size } as unknown as Partial<Values<F>>);
    const answer = this.#ioctl(request, bytes);
    return { answer, values: layout.decode(bytes) };
  }

  #ioctl(request: number, argument: Uint8Array): Answer {
    // SAFETY: the argsz of `argument` is its length
    return answerOf(withAddress(argument, (at) => tryIoctl(this.#device.number, request, at)));
  }
}

function answerOf(result: number): Answer {
  return result < 0 ? `-1 ${errnoName(-result)}` : String(result);
}
