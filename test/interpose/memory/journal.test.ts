import { describe, expect, it } from 'vitest';
import { MAPPING_STRIDE, MAX_MAPPINGS } from '../../../src/vfio/server/mapping.ts';
import { DEVICE_ARENA_SIZE, deviceArena, JournalLayout, MAX_PARKED } from '../../../src/interpose/memory/journal.ts';
import { ledgerSize } from '../../../src/interpose/memory/ledger.ts';

describe('JournalLayout', () => {
  it.each([1, 2, 64])('gives each thing bytes of its own (%i devices)', (devices) => {
    const layout = new JournalLayout(devices);
    const journal = new Uint8Array(layout.size);
    const { nodes, mappings } = layout.parts(journal);
    const places = Array.from({ length: 1 + MAX_PARKED }, (_, place) => place);
    const parts = [
      ...places.flatMap((place) => [layout.notification(journal, place), layout.attempts(journal, place)]),
      layout.ledgers(journal),
      nodes,
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
