import { describe, expect, it } from 'vitest';
import {
  declared,
  dmaOf,
  driverOf,
  ENDS,
  inWords,
  isReason,
  KIB,
  MIB,
  rowOf,
  type Case,
  type Decision,
} from '../../matrix/decisions/case.ts';
import { cases } from '../../matrix/decisions/cases.ts';
import { looksIn } from '../../matrix/decisions/looks.ts';
import { render, surprises } from '../../matrix/decisions/report.ts';
import { documents } from './documents.ts';

const text = documents.find(({ path }) => path === 'docs/decisions.md')?.text ?? '';

describe('docs/decisions.md', () => {
  const rows = text
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| QEMU') && !line.startsWith('| --'))
    .map((line) => line.split('|').map((cell) => cell.trim()));

  it('has each case, decided as declared natively and across the bridge', () => {
    const decided = rows.map(([, title, dma, ...cells]) => [
      title?.replace(/ \(\d\)$/, ''),
      dma,
      ...cells.slice(0, 2).map((cell) => cell.split(';')[0]),
    ]);
    expect(decided).toEqual(
      cases.map((each) => [
        rowOf(each),
        dmaOf(each),
        ...ENDS.map((end) => `${driverOf(each, end)}: ${declared(each, end)}`),
      ]),
    );
  });
});

describe('a decision', () => {
  const each: Case = {
    qemu: '7.2',
    pace: 'in pre-copy',
    size: MIB,
    bandwidth: 10 * KIB,
    expected: 'stops it within the limit',
  };
  const last = { pending: 4 * KIB, device: 3 * KIB };
  const fits = { pending: KIB, device: 1 };
  const stopped: Decision = { stopped: true, rounds: 3, before: 0, behind: 3 * KIB, last: fits, dirty: KIB };

  it('is above the limit by the first byte that the bandwidth does not move in it', () => {
    expect(inWords(stopped, each)).toBe('stops it within the limit');
    expect(inWords({ ...stopped, behind: 3 * KIB + 1 }, each)).toBe('stops it above the limit');
    expect(inWords({ ...stopped, stopped: false }, each)).toBe('does not stop the VM');
  });

  it('is not above the limit by a bandwidth that QEMU has measured, if that is more', () => {
    const above = { ...stopped, behind: 3 * KIB + 1 };
    expect(inWords({ ...above, last: { ...last, fits: 3 * KIB + 1 } }, each)).toBe('stops it within the limit');
    expect(inWords({ ...above, last: { ...last, fits: 2 * KIB } }, each)).toBe('stops it above the limit');
  });

  it.each([
    { told: { pending: 3 * KIB, device: 1 }, fits: false },
    { told: { pending: 3 * KIB - 1, device: 1 }, fits: true },
    { told: { pending: 3 * KIB, device: 1, fits: 3 * KIB + 1 }, fits: true },
    { told: { pending: 2 * KIB, device: 1, fits: KIB }, fits: false },
    { told: { pending: 0, device: 0, fits: 0 }, fits: true },
  ])('has a reason if QEMU was told $told, and stopped the VM: $fits', ({ told, fits: isFitting }) => {
    expect(isReason({ ...stopped, last: told }, each)).toBe(isFitting);
    expect(isReason({ ...stopped, stopped: false, last: told }, each)).toBe(!isFitting);
  });

  it('is a surprise without such a reason', () => {
    expect(surprises(new Map([[each, { native: stopped, bridged: { ...stopped, last } }]]))).toEqual([each]);
  });

  it('is a surprise if it is not the declared one, whatever the numbers', () => {
    const more = { ...stopped, rounds: 9, before: 7 };
    expect(surprises(new Map([[each, { native: stopped, bridged: more }]]))).toEqual([]);
    const decided = new Map([[each, { native: stopped, bridged: { ...more, stopped: false, last } }]]);
    expect(surprises(decided)).toEqual([each]);
    expect(render(decided, new Map([['7.2', 'QEMU seven']])).split('\n')).toEqual(
      expect.arrayContaining([
        '- 7.2: QEMU seven',
        expect.stringMatching(
          /vendor-v1: stops it within the limit; 3 rounds, 0 KiB before, 3 KiB after, told 1 B +\|/,
        ),
        expect.stringMatching(/mlx5,initial=1048576: does not stop the VM; 9 rounds, 1 KiB sent, told 3 KiB +\|/),
      ]),
    );
  });

  it('does not tell what was sent if QEMU does not', () => {
    const untold = { ...stopped, stopped: false, before: undefined, last };
    expect(render(new Map([[each, { native: untold, bridged: untold }]]), new Map())).toContain('3 rounds, told 3 KiB');
  });

  it('tells of DMA what was dirty, and less than a KiB as it is', () => {
    const dma: Case = { ...each, dma: 7 };
    const text = render(new Map([[dma, { native: { ...stopped, last }, bridged: stopped }]]), new Map());
    expect(text).toMatch(/\| 7 pages\/s \| vendor-v1: .*, told 3 KiB, dirty 1 KiB +\| .*, told 1 B, dirty 1 KiB/);
  });
});

describe('what QEMU traces of its looks', () => {
  it('QEMU 7.2: what is pending behind each look for dirty memory, and not what is pending in between', () => {
    const printed = [
      'migration_bitmap_sync_end dirty_pages 0',
      'vfio_update_pending  (0000:90:00.0) pending 0x40020',
      'migrate_pending pending size 67903520 max 0 (pre = 67903520 compat=0 post=0)',
      'a line of somebody else',
      'vfio_update_pending  (0000:90:00.0) pending 0x40020',
      'migrate_pending pending size 65802272 max 204919 (pre = 65802272 compat=0 post=0)',
      'migration_bitmap_sync_end dirty_pages 726',
      'vfio_update_pending  (0000:90:00.0) pending 0x0',
      'migrate_pending pending size 4096 max 1255633 (pre = 4096 compat=0 post=0)',
    ];
    expect(looksIn(printed.join('\n'))).toEqual([
      { pending: 67903520, device: 0x40020, fits: 0 },
      { pending: 4096, device: 0, fits: 1255633 },
    ]);
  });

  it('QEMU 10: what is pending exactly, and the MIG_DATA_SIZE in it', () => {
    const printed = [
      'migration_bitmap_sync_end dirty_pages 3',
      'vfio_state_pending_exact  (0000:90:00.0) precopy 12289 postcopy 0 stopcopy size 1 precopy initial size 0 precopy dirty size 0',
      'migrate_pending_exact exact pending size 12289 (pre = 12289 post=0)',
      'migration_bitmap_sync_end dirty_pages 3',
    ];
    expect(looksIn(printed.join('\n'))).toEqual([{ pending: 12289, device: 1 }]);
  });
});
