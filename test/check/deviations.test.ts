import { describe, expect, it } from 'vitest';
import {
  checkDevice,
  deviationLists,
  deviationsNamed,
  deviationsOf,
  inWords,
  junit,
  parseDeviations,
  rulesFor,
  Tap,
  type CheckedDevice,
  type Conclusion,
} from '../../src/check/index.ts';
import { createSim, parseSpec } from '../../src/sim/index.ts';
import { DRIVERS } from '../../src/sim/drivers.ts';

const HISI = [
  'v2-reset-stop',
  'v2-reset-stop-copy',
  'v2-reset-resuming',
  'v2-reset-pre-copy',
  'v2-session-ends-reset',
  'v2-precopy-end',
  'v2-refused-for-good',
  'v2-refused-reset',
];
const RECORDS = ['v2-refuses-nothing', 'v2-refuses-truncated', 'v2-refused-for-good'];
const LIBVFIO = ['v1-arc-stop-stop-copy', 'v1-arc-stop-resuming'];

/** Every simulated driver, and what it breaks. */
const SIMS: readonly (readonly [spec: string, breaks: readonly string[]])[] = [
  ['qat', ['v2-precopy-end']],
  ['qat,size=1K,block=1,short=256', ['v2-precopy-end']],
  ['qat,real=1', ['v2-precopy-end', 'v2-refuses-nothing', 'v2-refuses-truncated']],
  ['mlx5', RECORDS],
  ['mlx5,kernel=7.1,delay=1', RECORDS],
  ['mtty', ['v2-precopy-end', 'v2-refused-for-good']],
  ['mtty,ports=2', ['v2-precopy-end', 'v2-refused-for-good']],
  ['pds', []],
  ['pds,real=1', []],
  ['hisi', ['v2-precopy-end']],
  ['hisi,real=1', HISI],
  ['hisi,real=1,up=0', HISI],
  ['virtio', RECORDS],
  ['xe', []],
  ['xe,nosize=1,unready=1', ['v2-size', 'v2-stop-copy-left']],
  ['vendor-v1', []],
  ['vendor-v1,strict=1,section=8K', []],
  ['vendor-v1,libvfio=1', LIBVFIO],
  ['hisi-v1', ['v1-data-again', 'v1-refuses-nothing', 'v1-refuses-truncated', 'v1-refuses-garbage']],
  ['mlx5-v1', ['v1-save-end', 'v1-repeat', 'v1-data-pieces', 'v1-refuses-nothing']],
  ['nvidia-v1', ['v1-data-read']],
  [
    'spdk-v1',
    [
      ...LIBVFIO,
      'v1-save-end',
      'v1-stop-copy-direct',
      'v1-repeat',
      'v1-data-again',
      'v1-refuses-nothing',
      'v1-refuses-truncated',
    ],
  ],
];

function device(spec: string): CheckedDevice {
  return { migratable: createSim(parseSpec(spec)) };
}

function check(spec: string): Conclusion {
  const deviations = deviationsOf(parseSpec(spec).driver)?.deviations ?? [];
  return checkDevice(device(spec), { deviations, reopen: () => device(spec) });
}

const ids = new Set(['v1', 'v2'].flatMap((protocol) => rulesFor(protocol as 'v1' | 'v2').map(({ id }) => id)));

describe('deviations', () => {
  it('every simulated driver that has rules is checked', () => {
    const drivers = SIMS.map(([spec]) => parseSpec(spec).driver);
    expect(new Set(drivers)).toEqual(new Set(DRIVERS.filter((driver) => !driver.startsWith('draft-'))));
  });

  it.each(SIMS)('%s breaks what its driver is known to break, and nothing else', (spec, breaks) => {
    const conclusion = check(spec);
    const { results } = conclusion;
    expect(results.flatMap(({ id, verdict }) => (verdict === 'deviates' ? id : []))).toEqual(
      [...ids].filter((id) => breaks.includes(id)),
    );
    expect(results.filter(({ verdict }) => verdict === 'broken')).toEqual([]);
    expect(conclusion.conforms).toBe(true);
  });

  it.each(['draft-2018', 'draft-2019'])('%s is not covered, which is an error', (spec) => {
    expect(() => check(spec)).toThrow(/v1 and v2 are checked/);
  });

  it('each is of a rule that there is, and says by what', () => {
    for (const { deviations } of deviationLists) {
      for (const { rule, why, source } of deviations) {
        expect(ids).toContain(rule);
        expect(why).not.toBe('');
        expect(source).toMatch(/\d/);
      }
    }
  });

  it('one that does not happen is told', () => {
    const { absent, conforms } = check('qat');
    expect(absent.map(({ rule }) => rule)).toEqual(['v2-refuses-nothing', 'v2-refuses-truncated']);
    expect(conforms).toBe(true);
  });

  it('lists are found by name and by driver', () => {
    expect(deviationsNamed('mtty')?.name).toBe('mtty');
    expect(deviationsOf('mlx5_vfio_pci')?.name).toBe('mlx5');
    expect(deviationsOf('hisi_acc_vfio_pci')?.name).toBe('hisi');
    expect(deviationsOf('vfio-pci')).toBeUndefined();
  });

  it("somebody's own are read, and what is wrong with them is told", () => {
    const one = { rule: 'v2-size', why: 'w', source: 's' };
    expect(parseDeviations(JSON.stringify([one]), ids)).toEqual([one]);
    expect(() => parseDeviations('{', ids)).toThrow(/is no JSON/);
    expect(() => parseDeviations('{}', ids)).toThrow(/is no list/);
    expect(() => parseDeviations('[null]', ids)).toThrow(/entry 1 has not the texts/);
    expect(() => parseDeviations('[{"rule":"v3","why":"","source":""}]', ids)).toThrow(/no rule "v3"/);
  });
});

describe('reports', () => {
  const conclusion = check('mtty');

  it('TAP has a line per rule, and a deviation is a TODO', () => {
    const tap = new Tap();
    const text = [
      tap.head(conclusion.results.length, ['about\nit']),
      ...conclusion.results.map((one) => tap.line(one)),
      tap.tail(conclusion),
    ].join('');
    const lines = text.split('\n');
    expect(lines.slice(0, 3)).toEqual(['TAP version 14', `1..${conclusion.results.length}`, '# about it']);
    const tests = lines.filter((line) => /^(not )?ok /.test(line));
    expect(tests).toHaveLength(conclusion.results.length);
    expect(tests.filter((line) => line.startsWith('not ok')).every((line) => line.includes(' # TODO known: '))).toBe(
      true,
    );
    expect(tests.filter((line) => line.includes(' # SKIP '))).toHaveLength(14);
    expect(lines.at(-2)).toBe(`# ${inWords(conclusion)}`);
  });

  it('JUnit counts the same, and a text of its own cannot break it', () => {
    const xml = junit('a <"&\u0000> b', {
      ...conclusion,
      results: conclusion.results.map((one) =>
        one.verdict === 'deviates' ? { ...one, verdict: 'broken' as const } : one,
      ),
    });
    expect(xml).toContain(
      '<testsuite name="a &lt;&quot;&amp; &gt; b" tests="109" failures="2" errors="0" skipped="14">',
    );
    expect(xml.match(/<testcase /g)).toHaveLength(109);
    expect(xml.match(/<failure /g)).toHaveLength(2);
  });

  it('a failure that no rule names is none to conform with', () => {
    const { results } = conclusion;
    const open = results.map((one) => ({ ...one, verdict: 'not tried' as const, isFailure: true as const }));
    expect(inWords({ results: open, conforms: false, absent: [] })).toMatch(
      /the device failed where no rule says by what/,
    );
  });
});
