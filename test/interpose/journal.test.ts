import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAPPING_STRIDE, MAX_MAPPINGS } from '../../src/vfio/server/dma-mappings.ts';
import {
  DEVICE_ARENA_SIZE,
  deviceArena,
  JournalLayout,
  Ledger,
  ledgerSize,
  MAX_PARKED,
} from '../../src/interpose/journal.ts';
import { noise } from '../support/bytes.ts';
import { crashes } from '../support/crashes.ts';

const SIZE = 100;
const id = (n: number): Uint32Array => new Uint32Array([n, n + 1000]);

/** What a successor finds. */
function found(memory: Uint8Array): { fresh: boolean; arena: string; value: number; error: number } {
  const ledger = new Ledger(memory, SIZE);
  const { value, error } = ledger.answer;
  return { fresh: ledger.isFresh, arena: Buffer.from(ledger.arena).toString('hex'), value, error };
}

describe('Ledger', () => {
  it('begins fresh, and keeps what was committed and nothing else', () => {
    const memory = new Uint8Array(ledgerSize(SIZE));
    const ledger = new Ledger(memory, SIZE);
    expect(ledger.isFresh).toBe(true);
    ledger.arena.set(noise(SIZE));
    expect(new Ledger(memory, SIZE).isFresh).toBe(true);
    ledger.commit(id(7), 123, -22);
    ledger.arena.fill(9);
    const successor = new Ledger(memory, SIZE);
    expect(successor.isFresh).toBe(false);
    expect(successor.arena).toEqual(noise(SIZE));
    expect(successor.answer).toMatchObject({ value: 123, error: -22 });
    expect(successor.isOf(id(7))).toBe(true);
    expect(successor.isOf(id(8))).toBe(false);
    expect(successor.isOf(new Uint32Array([7, 1]))).toBe(false);
  });

  it('is not the result of any call where it was committed for none', () => {
    const memory = new Uint8Array(ledgerSize(SIZE));
    const ledger = new Ledger(memory, SIZE);
    ledger.commit(id(7), 1);
    ledger.commit();
    expect(new Ledger(memory, SIZE).isOf(id(7))).toBe(false);
  });

  it('shows the state before or after a commit that was cut off anywhere', () => {
    const memory = new Uint8Array(ledgerSize(SIZE));
    const ledger = new Ledger(memory, SIZE);
    for (let n = 1; n <= 6; n += 1) {
      const before = found(memory);
      ledger.arena.set(noise(SIZE, n));
      const images = crashes(memory, () => ledger.commit(id(n), n * 10, -n)).map(found);
      const after = found(memory);
      expect(after).toEqual({
        fresh: false,
        arena: Buffer.from(noise(SIZE, n)).toString('hex'),
        value: n * 10,
        error: -n,
      });
      const turn = images.findIndex((image) => image.arena === after.arena);
      expect(turn).toBeGreaterThan(0);
      for (const [k, image] of images.entries()) expect(image).toEqual(k < turn ? before : after);
      expect(images.length).toBeGreaterThan(4);
    }
  });

  it('goes on from where a predecessor was cut off', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20), { minLength: 1, maxLength: 12 }), (cuts) => {
        let memory: Uint8Array = new Uint8Array(ledgerSize(SIZE));
        for (const [n, cut] of cuts.entries()) {
          const before = found(memory);
          const ledger = new Ledger(memory, SIZE);
          ledger.arena.set(noise(SIZE, n));
          const images = crashes(memory, () => ledger.commit(id(n), n));
          memory = images[cut % images.length] ?? memory;
          expect([before, found(images.at(-1) ?? memory)]).toContainEqual(found(memory));
        }
      }),
      { numRuns: 50 },
    );
  });

  it('never comes back to fresh, however often it is committed', () => {
    const memory = new Uint8Array(ledgerSize(SIZE));
    for (const generation of [0xffff_ffed, 0xffff_ffee, 0xffff_ffef, 0xffff_fff0, 0xffff_ffff]) {
      new Ledger(memory, SIZE).commit();
      new DataView(memory.buffer).setUint32(0, generation, true);
      const ledger = new Ledger(memory, SIZE);
      for (let n = 1; n < 10; n += 1) {
        ledger.arena.fill(n);
        const images = crashes(memory, () => ledger.commit(id(n)));
        for (const image of images) {
          const state = found(image);
          expect(state.fresh).toBe(false);
          if (n > 1) expect([n - 1, n]).toContain(Number.parseInt(state.arena.slice(0, 2), 16));
        }
        expect(found(memory).arena).toBe(Buffer.alloc(SIZE, n).toString('hex'));
      }
    }
  });
});

describe('JournalLayout', () => {
  it.each([1, 2, 64])('gives each thing bytes of its own (%i devices)', (devices) => {
    const layout = new JournalLayout(devices);
    const journal = new Uint8Array(layout.size);
    const { fabric, mappings } = layout.parts(journal);
    const places = Array.from({ length: 1 + MAX_PARKED }, (_, place) => place);
    const parts = [
      ...places.flatMap((place) => [layout.notification(journal, place), layout.attempts(journal, place)]),
      fabric,
      mappings,
      ...Array.from({ length: devices }, (_, n) => layout.device(journal, n)),
    ];
    for (const part of parts) {
      expect(part.some((byte) => byte !== 0)).toBe(false);
      part.fill(1);
    }
    expect(mappings.length).toBeGreaterThanOrEqual(MAX_MAPPINGS * MAPPING_STRIDE);
    for (const part of parts.slice(-devices)) {
      expect(part.length).toBeGreaterThanOrEqual(ledgerSize(DEVICE_ARENA_SIZE));
      expect(part.byteOffset % 8).toBe(0);
    }
    for (const place of places) expect(layout.notification(journal, place).byteOffset % 8).toBe(0);
  });

  it('keeps the parts of a device apart', () => {
    const arena = new Uint8Array(DEVICE_ARENA_SIZE);
    for (const { offset, size } of Object.values(deviceArena)) {
      const part = arena.subarray(offset, offset + size);
      expect(part.length).toBe(size);
      expect(part.some((byte) => byte !== 0)).toBe(false);
      part.fill(1);
      expect(offset % 8).toBe(0);
    }
  });
});
