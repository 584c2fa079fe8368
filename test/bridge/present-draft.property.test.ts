import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PRESENT_DRAFT_STATE_SIZE } from '../../src/bridge/present-draft-state.ts';
import { presentV1 } from '../../src/bridge/present-v1.ts';
import { createSim, parseSpec } from '../../src/sim/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { Draft, DraftDevice } from '../../src/v1/drafts/device.ts';
import { readDirtyPages } from '../../src/v1/drafts/dirty.ts';
import { DraftAccess } from '../../src/v1/drafts/registers.ts';
import { DraftRestore } from '../../src/v1/drafts/restore.ts';
import { join } from '../support/bytes.ts';
import { GENERATIONS, presentDraft } from '../support/drafts.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { SpyV1 } from '../support/spy-v1.ts';

/** What a VMM, its guest and whoever replaces the process that serves it may do while a device is saved. */
const steps = ['pending', 'offset', 'size', 'take', 'dirty', 'guest', 'same', 'stop', 'replace'] as const;
type Step = (typeof steps)[number];

const DRIVERS = ['vendor-v1,size=40000,section=16K,dirty=2', 'qat,size=40000,short=3000', 'mtty'];

/** A device below a presented draft, watched as a v1 device. */
class Bed {
  readonly bar: Uint8Array;
  readonly spy: SpyV1;
  readonly #isV2: boolean;
  readonly #section = new Uint8Array(16 * 1024);
  readonly #aside = new Uint8Array(16 * 1024);
  readonly #state = new Uint8Array(PRESENT_DRAFT_STATE_SIZE);
  readonly #draft: Draft;
  device: DraftDevice;

  constructor(draft: Draft, text: string) {
    const sim = createSim(parseSpec(text));
    this.bar = sim.bar;
    this.#draft = draft;
    this.#isV2 = sim.protocol === 'v2';
    let v1: V1Device;
    if (sim.protocol === 'v2') v1 = presentV1(sim.device, { dataSection: new Uint8Array(16 * 1024) });
    else if (sim.protocol === 'v1') v1 = sim.device;
    else throw new Error(`${text} is a draft`);
    this.spy = new SpyV1(v1);
    this.device = this.#present();
  }

  #present(): DraftDevice {
    const memory = { dataSection: this.#section, aside: this.#aside, state: this.#state };
    return presentDraft(this.#draft, this.spy, { ...memory, stopAfterLoad: this.#isV2 });
  }

  /** Another process goes on with the same memory. */
  replace(): void {
    this.device = this.#present();
  }
}

/** A VMM that takes what the draft's rules let it take, in any order. */
class User {
  readonly taken: Uint8Array[] = [];
  readonly #bed: Bed;
  #isStopped = false;
  /** 2018: what the two registers of a buffer have said. */
  #offset: number | undefined;
  #size: number | undefined;
  /** 2019: what is pending by the last answer. */
  #told = 0;

  constructor(bed: Bed) {
    this.#bed = bed;
    this.#write(3);
  }

  #registers(): DraftAccess<Draft> {
    return new DraftAccess(this.#bed.device, this.#bed.device.draft);
  }

  get #is2018(): boolean {
    return this.#bed.device.draft === 'draft-2018';
  }

  #write(state: number): void {
    this.#registers().write('device_state', state);
  }

  do(step: Step): void {
    switch (step) {
      case 'pending':
        this.pending();
        return;
      case 'offset':
      case 'size':
        if (this.#is2018) this.#look(step);
        return;
      case 'take':
        this.take();
        return;
      case 'dirty':
        readDirtyPages(this.#bed.device, { first: 0, pages: 70_000, pageSize: 4096 }, () => {});
        return;
      case 'guest':
        this.#guest();
        return;
      case 'same':
        this.#write(this.#isStopped ? (this.#is2018 ? 4 : 2) : 3);
        return;
      case 'stop':
        this.stop();
        return;
      case 'replace':
        this.#bed.replace();
    }
  }

  #guest(): void {
    if (this.#isStopped) return;
    const { bar } = this.#bed;
    const at = (this.taken.length * 4099) % bar.length;
    bar[at] = ((bar[at] ?? 0) + 1) & 0xff;
  }

  stop(): void {
    if (!this.#isStopped) this.#write(this.#is2018 ? 4 : 2);
    this.#isStopped = true;
  }

  pending(): number {
    const registers = this.#registers();
    if (!this.#is2018) return (this.#told = registers.estimate('pending_bytes'));
    const kind = this.#isStopped ? 'pending_postcopy_only' : 'pending_precopy_only';
    return (registers as DraftAccess<'draft-2018'>).estimate(kind);
  }

  /** One register of a buffer. What it belongs to is copied when both are known. */
  #look(which: 'offset' | 'size'): void {
    const value = this.#registers().count(which === 'offset' ? 'data_offset' : 'data_size');
    if (which === 'offset') this.#offset = value;
    else this.#size = value;
    if (this.#offset === undefined || this.#size === undefined) return;
    this.#copy(this.#offset, this.#size);
    this.#offset = undefined;
    this.#size = undefined;
  }

  #copy(offset: number, size: number): void {
    const { mapped, dataSection } = this.#bed.device;
    if (size > 0) this.taken.push(mapped.slice(offset - dataSection.offset, offset - dataSection.offset + size));
  }

  /** A whole buffer; returns its size. */
  take(): number {
    const before = this.taken.length;
    if (this.#is2018) {
      if (this.#offset === undefined) this.#look('offset');
      if (this.taken.length === before) this.#look('size');
    } else {
      this.pending();
      const offset = this.#registers().count('data_offset');
      const { dataSection } = this.#bed.device;
      const size = Math.min(this.#told, dataSection.offset + dataSection.size - offset);
      this.#copy(offset, size);
      this.#told -= size;
    }
    return this.taken.length === before ? 0 : (this.taken.at(-1)?.length ?? 0);
  }

  /** To the end, and RUNNING. */
  finish(): void {
    this.stop();
    for (let n = 0; this.pending() > 0; n += 1) {
      expect(n).toBeLessThan(10_000);
      this.take();
    }
    this.#write(this.#is2018 ? 5 : 0);
    this.#write(1);
  }
}

describe.each(GENERATIONS)('%s, presented', (draft) => {
  it.each(DRIVERS)('loses and doubles no byte of %s, whatever its user does', { timeout: PROPERTY_TIMEOUT }, (text) => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...steps), { maxLength: 40 }), (given) => {
        const bed = new Bed(draft, `${text},seed=9`);
        const user = new User(bed);
        for (const step of given) user.do(step);
        user.finish();
        expect(join(user.taken)).toBeBytes(join(bed.spy.consumed));

        const other = new Bed(draft, text);
        const restore = new DraftRestore(other.device);
        restore.setup();
        for (const buffer of user.taken) restore.load(buffer);
        restore.complete();
        expect(other.bar).toBeBytes(bed.bar);
      }),
      { numRuns: numRuns(40) },
    );
  });
});
