import { struct } from '../abi/struct.ts';
import { hasErrno } from '../error.ts';
import { DATA_OFFSET, V1Region, type V1DataSection, type V1Registers } from '../v1/region.ts';
import { V1, v1StateName, type V1State } from '../v1/states.ts';
import type { V1Kind } from './driver-kind.ts';
import type { SimMemory } from './memory.ts';
import { refused, v1DriverFields, V1DriverState } from './v1-driver.ts';
import { record, vendorFields } from './vendor-v1-format.ts';
import { VendorLoader } from './vendor-v1-load.ts';
import { iterativeOptions, type IterativeValues } from './vendor-v1-options.ts';
import { VendorSaver } from './vendor-v1-save.ts';

const nvidia_v1_state = struct('nvidia_v1_state', 128, {
  ...vendorFields,
  ...v1DriverFields,
  /** The last state that the plugin was told of. */
  plugin: ['u32', 104],
  /** A buffer lies in the staging buffer that has not been taken. */
  fetched: ['u32', 108],
  /** Bytes of the buffer that was fetched last. */
  written: ['count', 112],
});

/** What a trapped read of the data section gives: whatever is on the kernel's stack. */
const GARBAGE = 0xdb;

/** The states that the driver is asked for; it would take more. */
const KNOWN: ReadonlySet<number> = new Set([V1.STOP, V1.RUNNING, V1.STOP_COPY, V1.PRE_COPY, V1.RESUMING]);

/**
 * `nvidia-v1`: NVIDIA's vGPU host driver for the uapi of Linux 5.8 (nvidia-vgpu-vfio.c: nv_vgpu_vfio_migration_set_state,
 * nv_vgpu_vfio_read_device_buffer, nv_vgpu_vfio_access; checked against the driver of the 460 branch, whose older uapi takes a
 * buffer by data_offset instead). Who knows the device is a plugin in another process, to which the driver hands
 * events.
 *
 * A read of pending_bytes has the plugin put the next buffer aside, and returns its size; in pre-copy, if it is full, all that is left, so
 * that QEMU does not switch over. Another read before the buffer is taken changes nothing. A read of data_size takes it: then
 * its bytes are in the data section, for mmap alone: a pread there gives garbage, a pwrite fails. The plugin loads within the
 * write of data_size. 0 is told to nobody. All failures are EFAULT.
 */
class NvidiaV1 implements V1Registers, V1DataSection {
  readonly offset = DATA_OFFSET;
  readonly size: number;
  readonly mapped: Uint8Array;
  readonly #staging: Uint8Array;
  readonly #my: ReturnType<typeof nvidia_v1_state.view>;
  readonly #state: V1DriverState;
  readonly #saver: VendorSaver;
  readonly #loader: VendorLoader;

  constructor(values: IterativeValues, memory: SimMemory) {
    const { bar, section, kept } = memory;
    this.size = section.length;
    this.mapped = section;
    this.#staging = kept.subarray(bar.length);
    this.#my = nvidia_v1_state.view(memory.state);
    this.#state = new V1DriverState(values, this.#my, memory.state);
    const sent = kept.subarray(0, bar.length);
    this.#saver = new VendorSaver(
      values,
      { bar, sent, buffer: this.#staging },
      this.#my,
      section.length - record.size, // a buffer with this many is full
    );
    this.#loader = new VendorLoader({ ...values, strict: false }, memory, this.#my);
    if (this.#my.plugin === V1.STOP) this.#my.plugin = V1.RUNNING; // of a fresh device: no event is of 0
  }

  readDeviceState(): number {
    return this.#state.current;
  }

  writeDeviceState(value: number): void {
    const from = this.#state.current;
    if (!KNOWN.has(value) || from === V1.ERROR) throw refused('EFAULT', `knows no state ${v1StateName(value)}`);
    const to = value as V1State;
    if (to !== from) this.#state.entering(to);
    if (to !== V1.STOP) this.#tellPlugin(to);
    this.#state.current = to;
  }

  #tellPlugin(to: V1State): void {
    const my = this.#my;
    if (to === my.plugin) return;
    if (my.plugin === V1.RESUMING) this.#plugin(() => this.#loader.checkComplete());
    if (my.plugin !== V1.PRE_COPY || to !== V1.STOP_COPY) this.#beginAnew();
    my.scan = 0;
    my.plugin = to;
  }

  readPendingBytes(): number {
    const my = this.#my;
    if (my.fetched === 0) this.#fetch();
    const isFull = my.written === this.size;
    return isFull && my.plugin === V1.PRE_COPY ? my.written + this.#saver.rest : my.written;
  }

  /** The plugin's next buffer. It takes its time: that is what `block` stands for. */
  #fetch(): void {
    const my = this.#my;
    my.written = 0;
    const { current } = this.#state;
    if (current !== V1.PRE_COPY && current !== V1.STOP_COPY) return;
    this.#state.moving('read');
    this.#saver.acknowledge();
    this.#saver.prepare();
    my.written = my.buffer_size;
    my.fetched = my.written > 0 ? 1 : 0;
  }

  readDataOffset(): number {
    return this.offset;
  }

  readDataSize(): number {
    const my = this.#my;
    if (my.fetched === 1) this.mapped.set(this.#staging.subarray(0, my.written));
    my.fetched = 0;
    return my.written;
  }

  writeDataSize(size: number): void {
    if (this.#my.plugin !== V1.RESUMING) throw refused('EFAULT', 'the plugin does not resume');
    this.#state.moving('write');
    this.#plugin(() => this.#loader.load(this.mapped.subarray(0, size)));
  }

  read(_at: number, into: Uint8Array): void {
    into.fill(GARBAGE);
  }

  write(): void {
    throw refused('EFAULT', 'the data section is written by mmap only');
  }

  reset(): void {
    this.#beginAnew();
    this.#my.plugin = V1.RUNNING;
    this.#state.current = V1.RUNNING;
  }

  #beginAnew(): void {
    this.#saver.begin();
    this.#loader.begin();
    this.#my.fetched = 0;
    this.#my.written = 0;
  }

  /** What the plugin does, with the driver's answer for all that it refuses. */
  #plugin(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!hasErrno(error, 'EINVAL')) throw error;
      throw refused('EFAULT', error.message);
    }
  }
}

/** `nvidia-v1`, see {@link NvidiaV1}. */
export const nvidiaV1: V1Kind<typeof iterativeOptions> = {
  protocol: 'v1',
  summary: "NVIDIA's vGPU host driver, uapi of 5.8: fetches on pending_bytes, data by mmap only, EFAULT for all",
  options: iterativeOptions,
  // a 3D controller, as vGPUs for computing are: of a VGA one of this vendor QEMU takes pieces out of BAR0 (hw/vfio/pci-quirks.c)
  pci: { vendor: 0x10de, device: 0x2230, class: 0x030200 },
  small: { size: 16 * 1024, section: 8 * 1024 },
  sectionSize: ({ section }) => section,
  keptSize: ({ size, section }) => size + section,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) => {
    const driver = new NvidiaV1(values, memory);
    return new V1Region(driver, driver, 'EFAULT');
  },
};
