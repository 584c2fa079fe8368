import { ShimError } from '../error.ts';
import type { SimMemory } from './memory.ts';
import { COLLECT_OFFSET, Kind, MAGIC, record, type VendorState } from './vendor-v1-format.ts';
import type { VendorV1Values } from './vendor-v1-options.ts';

type LoaderValues = Pick<VendorV1Values, 'size' | 'version' | 'compat' | 'strict'>;

/** The destination's half of `vendor-v1`: takes records apart, wherever the transactions cut them. */
export class VendorLoader {
  readonly #values: LoaderValues;
  readonly #memory: Pick<SimMemory, 'bar' | 'state'>;
  readonly #my: VendorState;
  readonly #collect: Uint8Array;

  constructor(values: LoaderValues, memory: Pick<SimMemory, 'bar' | 'state'>, state: VendorState) {
    this.#values = values;
    this.#memory = memory;
    this.#my = state;
    this.#collect = memory.state.subarray(COLLECT_OFFSET, COLLECT_OFFSET + record.size);
  }

  begin(): void {
    const my = this.#my;
    my.header_loaded = 0;
    my.end_loaded = 0;
    my.collected = 0;
    my.data_left = 0;
    my.data_at = 0;
  }

  /** One transaction. */
  load(bytes: Uint8Array): void {
    let at = 0;
    let records = 0;
    while (at < bytes.length) {
      const piece = bytes.subarray(at);
      if (this.#my.data_left > 0) at += this.#takeData(piece);
      else {
        records += this.#my.collected === 0 ? 1 : 0;
        at += this.#takeRecord(piece);
      }
    }
    const { collected, data_left } = this.#my;
    if (this.#values.strict && (records !== 1 || collected > 0 || data_left > 0)) {
      throw refused('a transaction is not the one that the source made');
    }
  }

  /** Throws `EINVAL` if the device lacks some of its state. */
  checkComplete(): void {
    if (this.#my.end_loaded === 0) throw refused('the state is incomplete');
  }

  #takeData(piece: Uint8Array): number {
    const my = this.#my;
    const data = piece.subarray(0, my.data_left);
    this.#memory.bar.set(data, my.data_at);
    my.data_at += data.length;
    my.data_left -= data.length;
    return data.length;
  }

  #takeRecord(piece: Uint8Array): number {
    const my = this.#my;
    const part = piece.subarray(0, record.size - my.collected);
    this.#collect.set(part, my.collected);
    my.collected += part.length;
    if (my.collected === record.size) {
      my.collected = 0;
      this.#begin(record.decode(this.#collect));
    }
    return part.length;
  }

  #begin({ magic, kind, version, compat, offset, length }: ReturnType<typeof record.decode>): void {
    const my = this.#my;
    const { size } = this.#values;
    if (magic !== MAGIC || my.end_loaded === 1) throw refused('no record begins there');
    if (compat !== this.#values.compat || version > this.#values.version)
      throw refused('the state is of another device');
    if (kind === Kind.HEADER) {
      if (offset !== BigInt(size)) throw refused(`the source has ${offset} bytes, this device ${size}`);
      my.header_loaded = 1;
    } else if (my.header_loaded === 0) throw refused('the state does not begin with its header');
    else if (kind === Kind.PAGES) {
      if (offset + length > BigInt(size) || length === 0n) throw refused(`${length} bytes at ${offset} of ${size}`);
      my.data_at = Number(offset);
      my.data_left = Number(length);
    } else if (kind === Kind.END) my.end_loaded = 1;
    else throw refused(`a record of kind ${kind}`);
  }
}

function refused(why: string): ShimError {
  return new ShimError('ERR_DEVICE', `simulated v1 driver: ${why}`, { errno: 'EINVAL' });
}
