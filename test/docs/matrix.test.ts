import { describe, expect, it } from 'vitest';
import { declared, type Cell, type Outcome } from '../../matrix/cell.ts';
import { cells, QEMUS } from '../../matrix/cells.ts';
import { render } from '../../matrix/report.ts';
import { documents } from './documents.ts';

const text = documents.find(({ path }) => path === 'docs/matrix.md')?.text ?? '';

describe('docs/matrix.md', () => {
  const versions = new Map(
    Array.from(text.matchAll(/^- ([\w.]+): (.*)$/gm), ([, name = '', words = '']) => [name, words]),
  );

  it('was written by programs that had all QEMUs', () => {
    expect([...versions.keys()]).toEqual(QEMUS);
    for (const words of versions.values()) expect(words).toMatch(/^QEMU emulator version \d+\.\d+\.\d+/);
  });

  it('says what the cells declare, as a run in which all comes out so writes it', () => {
    expect(text).toBe(render(new Map(cells.map((cell) => [cell, declared(cell)])), versions));
  });
});

describe('render', () => {
  const cell: Cell = {
    table: 'T',
    row: 'R',
    column: 'C',
    from: '5.2',
    to: '5.2',
    machine: 'pc',
    device: 'qat',
    way: 'live',
  };

  it('quotes once what several cells came to', () => {
    const outcomes = new Map<Cell, Outcome>([
      [cell, { verdict: 'fails', words: 'no `luck`' }],
      [
        { ...cell, column: 'D' },
        { verdict: 'fails', words: 'no `luck`' },
      ],
      [
        { ...cell, row: 'S' },
        { verdict: 'not run', words: 'no QEMU' },
      ],
      [
        { ...cell, row: 'S', column: 'D' },
        { verdict: 'works', sha256: 'abc' },
      ],
    ]);
    const lines = render(outcomes, new Map([['5.2', 'QEMU five']])).split('\n');
    expect(lines).toEqual(
      expect.arrayContaining([
        '- 5.2: QEMU five',
        '|     | C           | D         |',
        '| --- | ----------- | --------- |',
        '| R   | fails (1)   | fails (1) |',
        '| S   | not run (2) | works     |',
        "1. `no 'luck'`",
        '2. `no QEMU`',
      ]),
    );
  });

  it('has no two cells in one place', () => {
    const places = cells.map(({ table, row, column }) => `${table}: ${row}, ${column}`);
    expect(new Set(places).size).toBe(places.length);
  });
});
