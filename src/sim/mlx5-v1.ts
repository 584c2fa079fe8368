import { struct } from '../abi/struct.ts';
import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { ShimError } from '../error.ts';
import { V1Region, type V1DataSection, type V1Registers } from '../v1/region.ts';
import { V1, v1StateName, type V1State } from '../v1/states.ts';
import { commonOptions, compatibilityOptions } from './common-options.ts';
import type { V1Kind } from './driver-kind.ts';
import type { SimMemory } from './memory.ts';
import type { ValuesOf } from './option.ts';
import { isFor, setupBlock, SETUP_SIZE, type Setup } from './setup-block.ts';
import { refused, v1DriverFields, V1DriverState } from './v1-driver.ts';

const options = { ...commonOptions(64 * 1024), ...compatibilityOptions };
type Mlx5V1Values = ValuesOf<typeof options>;

const MAGIC = 0x3158_4c4d; // "MLX1"
/** The driver's MLX5VF_MIG_REGION_DATA_SIZE. */
const WINDOW = 128 * 1024;
const PAGE = 4096;

const mlx5_v1_state = struct('mlx5_v1_state', 48, {
  ...v1DriverFields,
  /** Stopped to its peers too: only then firmware gives the state away. */
  frozen: ['u8', 20],
  /** data_size was read or written since pending_bytes was read. */
  size_seen: ['u8', 21],
  /** Bytes of the image, and where in it the window begins. */
  state_size: ['count', 24],
  window: ['count', 32],
});

/**
 * `mlx5-v1`: the migration region of NVIDIA's ConnectX driver as it was proposed for v1 (mlx5vf_pci_set_device_state,
 * mlx5vf_pci_handle_migration_pending_bytes, mlx5vf_pci_handle_migration_data_size, mlx5vf_pci_copy_device_state_to_user: patches
 * of October 2021, "mlx5: Implement vfio_pci driver for mlx5 devices"; merged for v2 only).
 *
 * Firmware gives an image, of which the region shows a window of 128 KiB at 32, without mmap. The window moves with a read of
 * pending_bytes, after its value was taken: so the last buffer is followed by one of 0 bytes while pending_bytes is not 0. Without
 * an image, as before the first save, a read of pending_bytes returns 0 bytes. A pread of data across a page puts each page's part
 * at the beginning of the user's buffer. An image is kept until a reset or the next RESUMING: a second save gives what the
 * first has left.
 */
class Mlx5V1 implements V1Registers, V1DataSection {
  readonly offset = vfio_device_migration_info.size;
  readonly size = WINDOW;
  readonly mapped = undefined;
  readonly #setup: Setup;
  readonly #bar: Uint8Array;
  readonly #image: Uint8Array;
  readonly #my: ReturnType<typeof mlx5_v1_state.view>;
  readonly #state: V1DriverState;

  constructor(values: Mlx5V1Values, memory: SimMemory) {
    this.#setup = { magic: MAGIC, version: values.version, compat: values.compat, size: values.size };
    this.#bar = memory.bar;
    this.#image = memory.kept;
    this.#my = mlx5_v1_state.view(memory.state);
    this.#state = new V1DriverState(values, this.#my, memory.state);
  }

  readDeviceState(): number {
    return this.#state.current;
  }

  /** What bits that switch on and off have the driver do, in its order. */
  writeDeviceState(value: number): void {
    const from = this.#state.current;
    const isKnown = value < V1.ERROR && value !== (V1.RUNNING | V1.RESUMING);
    if (from === V1.ERROR || !isKnown)
      throw refused('EINVAL', `${v1StateName(from)} does not lead to ${v1StateName(value)}`);
    if (value === from) return;
    const to = value as V1State;
    this.#state.entering(to);
    const runs = (state: V1State): boolean => (state & V1.RUNNING) !== 0;
    if (runs(from) && !runs(to)) this.#my.frozen = 1;
    if (to === V1.STOP_COPY) this.#save();
    if (to === V1.RESUMING) this.#beginAnew();
    if (from === V1.RESUMING) this.#load();
    if (!runs(from) && runs(to)) this.#my.frozen = 0;
    this.#state.current = to;
  }

  readPendingBytes(): number {
    const my = this.#my;
    let pending = 0;
    if (this.#state.current !== V1.PRE_COPY) {
      if (my.state_size === 0)
        throw new ShimError('ERR_DEVICE', 'simulated v1 driver: read of pending_bytes returned 0', { errno: 'EIO' });
      pending = my.state_size - my.window;
    }
    if (my.size_seen === 1) my.window += Math.min(WINDOW, pending);
    my.size_seen = 0;
    return pending;
  }

  readDataOffset(): number {
    if (this.#state.current === V1.STOP_COPY && this.#available > 0) this.#state.moving('read');
    return this.offset;
  }

  readDataSize(): number {
    if (this.#state.current !== V1.STOP_COPY) throw refused('EINVAL', 'data_size is read in stop-and-copy only');
    this.#my.size_seen = 1;
    return this.#available;
  }

  writeDataSize(size: number): void {
    const my = this.#my;
    if (this.#state.current !== V1.RESUMING) throw refused('EINVAL', 'data_size is written while resuming only');
    this.#state.moving('write');
    if (my.window + size + WINDOW > this.#image.length) throw refused('ENOMEM', 'the image is too large');
    my.state_size += size;
    my.window += size;
    my.size_seen = 1;
  }

  read(at: number, into: Uint8Array): void {
    if (at + into.length > this.#available) throw refused('EINVAL', 'no data there');
    for (let done = 0; done < into.length;) {
      const from = this.#my.window + at + done;
      const piece = Math.min(PAGE - (from % PAGE), into.length - done);
      into.set(this.#image.subarray(from, from + piece)); // not behind what came before
      done += piece;
    }
  }

  write(at: number, from: Uint8Array): void {
    const begin = this.#my.window + at;
    if (begin + from.length > this.#image.length) throw refused('EINVAL', 'no page there');
    this.#image.set(from, begin);
  }

  reset(): void {
    this.#beginAnew();
    this.#my.frozen = 0;
    this.#state.current = V1.RUNNING;
  }

  /** Bytes in the window. */
  get #available(): number {
    const { state_size, window } = this.#my;
    return Math.min(WINDOW, state_size - window);
  }

  #beginAnew(): void {
    const my = this.#my;
    my.state_size = 0;
    my.window = 0;
    my.size_seen = 0;
  }

  #save(): void {
    const my = this.#my;
    if (my.frozen === 0) throw refused('EFAULT', 'the device is not frozen');
    if (my.state_size > 0) return; // it has been read already
    this.#image.set(setupBlock(this.#setup));
    this.#image.set(this.#bar, SETUP_SIZE);
    my.state_size = SETUP_SIZE + this.#bar.length;
  }

  #load(): void {
    const { state_size } = this.#my;
    if (state_size === 0) return;
    if (state_size !== SETUP_SIZE + this.#bar.length || !isFor(this.#setup, this.#image)) {
      this.#state.current = V1.ERROR;
      throw refused('EINVAL', 'firmware refuses the image');
    }
    this.#bar.set(this.#image.subarray(SETUP_SIZE, state_size));
  }
}

/** `mlx5-v1`, see {@link Mlx5V1}. */
export const mlx5V1: V1Kind<typeof options> = {
  protocol: 'v1',
  summary: 'NVIDIA ConnectX as proposed in 2021: a window of 128 KiB, no mmap, ends with a buffer of 0 bytes',
  options,
  pci: { vendor: 0x15b3, device: 0x1018, class: 0x020000 },
  small: { size: 16 * 1024 },
  sectionSize: () => WINDOW,
  keptSize: ({ size }) => SETUP_SIZE + size + WINDOW,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) => {
    const driver = new Mlx5V1(values, memory);
    return new V1Region(driver, driver, 'EINVAL');
  },
};
