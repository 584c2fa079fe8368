import { struct } from '../../abi/struct.ts';
import type { DirtyBitmap, DmaLog, IovaRange } from '../dma-log.ts';
import type { BitmapMemory, FeatureLog } from './feature-log.ts';
import { refuse } from './refuse.ts';
import { LOG_PAGE, type WindowLog } from './window-log.ts';

/** The most ranges that may be logged (drivers/vfio/vfio_main.c of Linux 6.12: LOG_MAX_RANGES, of what fits a page). */
export const MAX_LOGGED_RANGES = 256;
const logged_range = struct('logged_range', 16, { iova: ['u64', 0], end: ['u64', 8] });

/** Bytes of memory that the ranges of a `DeviceLog` take. */
export const LOGGED_RANGES_SIZE = MAX_LOGGED_RANGES * logged_range.size;

/** How many ranges are logged, if any are: what has to be kept with the state of the device that it belongs to. */
export const device_log = struct('device_log', 8, { isOn: ['u32', 0], ranges: ['u32', 4] });

/**
 * The log of a device that logs its own DMA, by pages of 4096 bytes. It has the habits of mlx5 (drivers/vfio/pci/mlx5/cmd.c, Linux
 * 6.12): a second start fails, a stop never does, and pages outside of the ranges are not told.
 */
export class DeviceLog implements DmaLog, FeatureLog {
  readonly window: WindowLog;
  readonly #my: ReturnType<typeof device_log.view>;
  readonly #memory: Uint8Array;
  #ranges: readonly { readonly iova: bigint; readonly end: bigint }[] = [];
  /** What `#ranges` was read for. */
  #known = 0;

  /** `ranges` outlives this process as the window does; `my` is what is kept with the device's state, and may be set back with it. */
  constructor(window: WindowLog, ranges: Uint8Array, my: ReturnType<typeof device_log.view>) {
    this.window = window;
    this.#memory = ranges;
    this.#my = my;
  }

  get isOn(): boolean {
    return this.#my.isOn === 1;
  }

  start(ranges: readonly IovaRange[]): bigint {
    if (this.isOn) throw refuse('EINVAL', 'DMA_LOGGING_START: the device logs already');
    this.window.clear();
    for (const [n, { iova, length }] of ranges.entries()) {
      logged_range.encode({ iova, end: iova + length }, this.#memory, n * logged_range.size);
    }
    this.#my.ranges = ranges.length;
    this.#my.isOn = 1;
    this.#known = 0;
    return BigInt(LOG_PAGE);
  }

  stop(): void {
    this.#my.isOn = 0;
    this.#known = 0;
  }

  readAndClear(range: IovaRange, into: DirtyBitmap): void {
    this.#collect(range);
    this.window.tell(range, into);
  }

  /** Touches none of the user's bytes that tell of no page of the log. */
  report(range: IovaRange, pageSize: bigint, memory: BitmapMemory): void {
    this.#collect(range);
    const logged = this.window.within(range);
    if (logged.length === 0n) return;
    const { iova, length } = range;
    const byteOf = (address: bigint): bigint => (address < iova ? 0n : (address - iova) / pageSize / 8n);
    const end = logged.iova + logged.length < iova + length ? logged.iova + logged.length : iova + length;
    const first = byteOf(logged.iova);
    const size = Number(byteOf(end - 1n) - first) + 1;
    try {
      const bits = memory.read(Number(first), size);
      const piece = { iova: iova + first * 8n * pageSize, length: end - (iova + first * 8n * pageSize) };
      if (this.window.tell(piece, { pageSize, bits })) memory.write(Number(first), bits);
    } catch (error) {
      this.window.giveBack();
      throw error;
    }
  }

  /** As readAndClear(), but the bits are left for `window` to tell. */
  #collect(range: IovaRange): void {
    if (!this.isOn) throw refuse('EINVAL', 'DMA_LOGGING_REPORT: the device does not log');
    this.window.collect(range);
  }

  /** A page of the window is written to. */
  note(page: number, iova: number): void {
    if (this.isOn && this.#isLogged(BigInt(iova))) this.window.note(page);
  }

  #isLogged(iova: bigint): boolean {
    if (this.#known === 0) {
      this.#known = 1;
      this.#ranges = Array.from({ length: this.#my.ranges }, (_, n) =>
        logged_range.decode(this.#memory, n * logged_range.size),
      );
    }
    return this.#ranges.some(({ iova: begin, end }) => begin <= iova && iova < end);
  }
}
