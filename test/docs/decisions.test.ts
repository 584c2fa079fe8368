import { describe, expect, it } from 'vitest';
import {
  declared,
  driverOf,
  ENDS,
  inWords,
  KIB,
  MIB,
  titleOf,
  type Case,
  type Decision,
} from '../../matrix/decisions/case.ts';
import { cases } from '../../matrix/decisions/cases.ts';
import { render, surprises } from '../../matrix/decisions/report.ts';
import { documents } from './documents.ts';

const text = documents.find(({ path }) => path === 'docs/decisions.md')?.text ?? '';

describe('docs/decisions.md', () => {
  const rows = text
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| QEMU') && !line.startsWith('| --'))
    .map((line) => line.split('|').map((cell) => cell.trim()));

  it('has each case, decided as declared natively and across the bridge', () => {
    const decided = rows.map(([, title, , ...cells]) => [
      title?.replace(/ \(\d\)$/, ''),
      ...cells.slice(0, 2).map((cell) => cell.split(';')[0]),
    ]);
    expect(decided).toEqual(
      cases.map((each) => [titleOf(each), ...ENDS.map((end) => `${driverOf(each, end)}: ${declared(each, end)}`)]),
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
  const stopped: Decision = { stopped: true, rounds: 3, before: 0, behind: 3 * KIB };

  it('is above the limit by the first byte that the bandwidth does not move in it', () => {
    expect(inWords(stopped, each)).toBe('stops it within the limit');
    expect(inWords({ ...stopped, behind: 3 * KIB + 1 }, each)).toBe('stops it above the limit');
    expect(inWords({ ...stopped, stopped: false }, each)).toBe('does not stop the VM');
  });

  it('is a surprise if it is not the declared one, whatever the numbers', () => {
    const more = { ...stopped, rounds: 9, before: 7 };
    expect(surprises(new Map([[each, { native: stopped, bridged: more }]]))).toEqual([]);
    const decided = new Map([[each, { native: stopped, bridged: { ...more, stopped: false } }]]);
    expect(surprises(decided)).toEqual([each]);
    expect(render(decided, new Map([['7.2', 'QEMU seven']])).split('\n')).toEqual(
      expect.arrayContaining([
        '- 7.2: QEMU seven',
        expect.stringMatching(/vendor-v1: stops it within the limit; 3 rounds, 0 KiB before, 3 KiB after/),
        expect.stringMatching(/mlx5,initial=1048576: does not stop the VM; 9 rounds, 1 KiB sent/),
      ]),
    );
  });
});
