import type { ErrnoName } from '../abi/errno.ts';
import { struct } from '../abi/struct.ts';
import type { CompatibleValues } from './common-options.ts';
import type { SimMemory } from './memory.ts';
import { BufferDevice } from './buffer-device.ts';
import { PRIVATE_OFFSET } from './v2-sim.ts';

/** ADF_GEN4_VF_MSTATE_SIZE (drivers/crypto/intel/qat/qat_common/adf_gen4_vf_mig.c, Linux 6.12). */
export const QAT_STATE_SIZE = 4096;

/** What begins each of the two parts of the state (qat_common/adf_mstate_mgr.c: struct adf_mstate_preh, Linux 6.12). */
const preamble = struct('adf_mstate_preh', 16, {
  magic: ['u32', 0],
  version: ['u32', 4],
  preh_len: ['u16', 8],
  n_sects: ['u16', 10],
  size: ['u32', 12],
});
const MAGIC = 0xadf5caea;

/** What begins a section, behind an id of 8 bytes (adf_mstate_mgr.c: struct adf_mstate_sect_h, Linux 6.12). */
const section = struct('adf_mstate_sect_h', 16, { size: ['u32', 8], sub_sects: ['u32', 12] });
const ID_SIZE = 8;

interface Section {
  readonly id: string;
  readonly content: Uint8Array;
  /** How many sections the content consists of. */
  readonly parts?: number;
}

function encodeSections(sections: readonly Section[]): Uint8Array {
  return Buffer.concat(
    sections.flatMap(({ id, content, parts = 0 }) => {
      const header = section.encode({ size: content.length, sub_sects: parts });
      header.set(new TextEncoder().encode(id));
      return [header, content];
    }),
  );
}

function encodePart(version: number, sections: readonly Section[]): Uint8Array {
  const content = encodeSections(sections);
  const head = { magic: MAGIC, version, preh_len: preamble.size, n_sects: sections.length, size: content.length };
  return Buffer.concat([preamble.encode(head), content]);
}

/** `n` sections one behind the other, by id; `undefined` if one of them ends beyond the bytes. */
function decodeSections(bytes: Uint8Array, n: number): Map<string, Uint8Array> | undefined {
  const found = new Map<string, Uint8Array>();
  let at = 0;
  for (let i = 0; i < n; i += 1) {
    if (at + section.size > bytes.length) return undefined;
    const { size } = section.decode(bytes, at);
    const id = new TextDecoder().decode(bytes.subarray(at, at + ID_SIZE)).replace(/\0.*$/s, '');
    at += section.size;
    if (at + size > bytes.length) return undefined;
    if (!found.has(id)) found.set(id, bytes.subarray(at, at + size));
    at += size;
  }
  return found;
}

/** The marks that outlive a session: a reset clears them (adf_gen4_vf_mig.c: adf_gen4_vfmig_reset_device). */
const marks = struct('sim_qat_marks', 8, { setup_size: ['u32', 0], remote_setup_size: ['u32', 4] });

/** What all these devices are the same in, and what a destination must have the same. */
const SERVICES = new Uint8Array([0x24, 0x09]);

const u32 = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer);

type Config = Pick<CompatibleValues, 'version' | 'compat'>;

function setupOf({ version, compat }: Config): Uint8Array {
  const parts = [
    { id: 'gencap', content: u32(compat) },
    { id: 'svcmap', content: SERVICES },
    { id: 'extdc', content: u32(0) },
  ];
  return encodePart(version, [{ id: 'CONFIG', content: encodeSections(parts), parts: parts.length }]);
}

function stateOf({ version }: Config, memory: Uint8Array): Uint8Array {
  const none = new Uint8Array(0);
  return encodePart(version, [
    { id: 'GENER', content: none },
    { id: 'MISCBAR', content: none },
    { id: 'ETRBAR', content: memory },
  ]);
}

/** The most memory for which the buffer has room. */
export const QAT_LARGEST_MEMORY =
  QAT_STATE_SIZE -
  setupOf({ version: 1, compat: 1 }).length -
  stateOf({ version: 1, compat: 1 }, new Uint8Array(0)).length;

/**
 * A QAT device with the habits of its driver (drivers/vfio/pci/qat/main.c, qat_common/adf_gen4_vf_mig.c and adf_mstate_mgr.c,
 * Linux 6.12). One buffer of 4096 bytes serves saving and resuming, and nobody clears it:
 *
 * - In STOP_COPY the whole buffer is the stream, with whatever lies behind the state.
 * - What a write is refused for was taken all the same. A bad preamble is refused in every write and at the exit; a configuration
 *   that does not fit is refused once, as the mark that a setup was seen is set before it is compared: later writes succeed, and the
 *   exit loads.
 * - The exit does not know how much was written. It judges what lies in the buffer, which may be of an earlier session.
 * - The marks outlive a session: a second state without a reset between is not checked.
 * - Compatibility has a direction: the destination needs every capability (`compat`, a mask) that the source has.
 *
 * `EOVERFLOW`, for a write that ends beyond 2^63, needs a length that no memory has.
 */
export class QatReal extends BufferDevice {
  readonly #config: Config;
  readonly #memory: SimMemory;
  readonly #marks: ReturnType<typeof marks.view>;

  constructor(values: CompatibleValues, migrationFlags: number, memory: SimMemory) {
    super(values, migrationFlags, QAT_STATE_SIZE, memory);
    this.#config = values;
    this.#memory = memory;
    this.#marks = marks.view(memory.state, PRIVATE_OFFSET);
  }

  override reset(): void {
    super.reset();
    this.#marks.setup_size = 0;
    this.#marks.remote_setup_size = 0;
  }

  /** A setup that was made since the last reset is not made again, even if a load has overwritten it. */
  protected override saveSetup(): number {
    if (this.#marks.setup_size === 0) {
      const setup = setupOf(this.#config);
      this.buffer.set(setup);
      this.#marks.setup_size = setup.length;
    }
    return this.#marks.setup_size;
  }

  protected saveState(): number {
    this.buffer.set(stateOf(this.#config, this.#memory.bar), this.saveSetup());
    return this.buffer.length;
  }

  protected override beginLoad(): void {
    // the buffer is as the last session has left it
  }

  protected override written(): ErrnoName | undefined {
    return this.#loadSetup(this.my.filled);
  }

  protected load(): ErrnoName | undefined {
    const refused = this.#loadSetup(this.buffer.length);
    if (refused !== undefined) return refused;
    const sections = this.#part(this.buffer.subarray(this.#marks.remote_setup_size));
    const memory = sections?.get('ETRBAR');
    if (memory?.length !== this.#memory.bar.length || !sections?.has('GENER') || !sections.has('MISCBAR')) {
      return 'EINVAL';
    }
    this.#memory.bar.set(memory);
    return undefined;
  }

  /** Checks the setup part once it lies in the first `length` bytes of the buffer (adf_gen4_vfmig_load_setup). */
  #loadSetup(length: number): ErrnoName | undefined {
    if (this.#marks.remote_setup_size > 0 || length < preamble.size) return undefined;
    const { preh_len, size } = preamble.decode(this.buffer);
    const setupSize = preh_len + size;
    if (setupSize > this.buffer.length) return 'EINVAL';
    if (length < setupSize) return undefined;
    const sections = this.#part(this.buffer.subarray(0, setupSize));
    if (sections === undefined) return 'EINVAL';
    this.#marks.remote_setup_size = setupSize;
    return this.#fits(sections.get('CONFIG')) ? undefined : 'EINVAL';
  }

  /** The sections of a part of the state; `undefined` if its preamble or one of them is bad. */
  #part(bytes: Uint8Array): Map<string, Uint8Array> | undefined {
    if (bytes.length < preamble.size) return undefined;
    const { magic, version, preh_len, n_sects } = preamble.decode(bytes);
    if (magic !== MAGIC || version > this.#config.version || preh_len > bytes.length) return undefined;
    return decodeSections(bytes.subarray(preh_len), n_sects);
  }

  #fits(config: Uint8Array | undefined): boolean {
    const parts = config && decodeSections(config, 3);
    const capabilities = parts?.get('gencap');
    const services = parts?.get('svcmap');
    if (capabilities?.length !== 4 || services === undefined || !parts?.has('extdc')) return false;
    const theirs = new DataView(capabilities.buffer, capabilities.byteOffset).getUint32(0, true);
    const isSuperset = (theirs & ~this.#config.compat) === 0;
    return isSuperset && Buffer.compare(services, SERVICES) === 0;
  }
}
