import { expect } from 'vitest';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../src/abi/vfio-v2.ts';
import type { IovaRange } from '../../src/vfio/dma-log.ts';
import { BytePort, failed } from './byte-port.ts';

const PAGE = 4096n;

/** A driver that logs in pages of 4 KiB at least, as drivers/vfio/vfio_main.c of Linux 6.12 has it asked. */
export class LoggingDriver {
  readonly port = new BytePort();
  /** Pages of 4 KiB that the device has written to and nobody has read. */
  readonly written = new Set<bigint>();
  ranges: IovaRange[] | undefined;

  constructor() {
    const { features } = this.port;
    features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_START, { set: (data, pointed) => this.#start(data, pointed) });
    features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, { set: (data) => this.#stop(data) });
    features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, { get: (data, pointed) => this.#report(data, pointed) });
  }

  writes(...addresses: bigint[]): void {
    for (const address of addresses) this.written.add(address / PAGE);
  }

  #start(data: Uint8Array, pointed: Uint8Array = new Uint8Array(0)): void {
    if (this.ranges !== undefined) throw failed('EBUSY');
    const control = vfio_device_feature_dma_logging_control.view(data);
    if (control.num_ranges === 0) throw failed('EINVAL');
    const { size } = vfio_device_feature_dma_logging_range;
    expect(pointed).toHaveLength(control.num_ranges * size);
    const ranges = Array.from({ length: control.num_ranges }, (_, n) =>
      vfio_device_feature_dma_logging_range.decode(pointed, n * size),
    );
    if (ranges.some(({ iova, length }) => (iova | length) % control.page_size !== 0n)) throw failed('EINVAL');
    if (control.page_size < PAGE) control.page_size = PAGE;
    this.ranges = ranges;
  }

  #stop(data: Uint8Array): void {
    expect(data).toHaveLength(0);
    this.ranges = undefined;
  }

  #report(data: Uint8Array, pointed: Uint8Array = new Uint8Array(0)): void {
    const { iova, length, page_size } = vfio_device_feature_dma_logging_report.decode(data);
    if (page_size < PAGE || this.ranges === undefined) throw failed('EINVAL');
    for (const page of this.written) {
      const at = page * PAGE - iova;
      if (at < 0n || at >= length) continue;
      const bit = Number(at / page_size);
      pointed[bit >> 3] = (pointed[bit >> 3] ?? 0) | (1 << (bit & 7));
      this.written.delete(page);
    }
  }
}
