import type { Conclusion, Result } from './check.ts';

/** A report as CI systems read it: one suite, a case per rule. A deviation is skipped, with what is known of it. */
export function junit(suite: string, { results }: Conclusion): string {
  const count = (...verdicts: Result['verdict'][]): number =>
    results.filter(({ verdict }) => verdicts.includes(verdict)).length;
  const attributes = `name="${xml(suite)}" tests="${results.length}" failures="${count('broken')}" errors="0" skipped="${count('not tried', 'deviates')}"`;
  const cases = results.map((result) => testCase(suite, result)).join('');
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n<testsuite ${attributes}>\n${cases}</testsuite>\n</testsuites>\n`;
}

function testCase(suite: string, result: Result): string {
  const open = `<testcase classname="${xml(suite)}" name="${xml(`${result.id}: ${result.sentence}`)}"`;
  const inner = outcome(result);
  return inner === '' ? `${open}/>\n` : `${open}>${inner}</testcase>\n`;
}

function outcome({ verdict, why = '', source, deviation }: Result): string {
  switch (verdict) {
    case 'kept':
      return '';
    case 'not tried':
      return `<skipped message="${xml(why)}"/>`;
    case 'deviates':
      return `<skipped message="${xml(`known: ${deviation?.why ?? ''} (${deviation?.source ?? ''}); ${why}`)}"/>`;
    case 'broken':
      return `<failure message="${xml(why)}">${xml(source)}</failure>`;
  }
}

/** Text of XML 1.0, which has no control characters at all. */
function xml(text: string): string {
  return (
    text
      // oxlint-disable-next-line no-control-regex -- a message may have anything in it
      .replaceAll(/[\u0000-\u001F\u007F]+/g, ' ')
      .replaceAll('&', '&amp;')
      .replaceAll('<', '&lt;')
      .replaceAll('>', '&gt;')
      .replaceAll('"', '&quot;')
  );
}
