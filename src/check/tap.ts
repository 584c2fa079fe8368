import type { Conclusion, Result } from './check.ts';

/** The lines of TAP 14 (testanything.org), each with its end. A deviation is a TODO, which no consumer counts as a failure. */
export class Tap {
  #number = 0;

  /** The version, the plan of as many rules, and comments. */
  head(rules: number, about: readonly string[]): string {
    return `TAP version 14\n1..${rules}\n${about.map(comment).join('')}`;
  }

  /** The test line of the next rule, with what is wrong as YAML. */
  line(result: Result): string {
    this.#number += 1;
    const { verdict, id, sentence, why = '' } = result;
    const description = `${this.#number} - ${escaped(`${id}: ${sentence}`)}`;
    switch (verdict) {
      case 'kept':
        return `ok ${description}\n`;
      case 'not tried':
        return `ok ${description} # SKIP ${oneLine(why)}\n`;
      case 'broken':
        return `not ok ${description}\n${details([
          ['source', result.source],
          ['why', why],
        ])}`;
      case 'deviates':
        return `not ok ${description} # TODO known: ${oneLine(result.deviation?.why ?? '')}\n${details([
          ['source', result.source],
          ['why', why],
          ['known from', result.deviation?.source ?? ''],
        ])}`;
    }
  }

  /** Comments at the end: deviations that did not happen, and the counts. */
  tail(conclusion: Conclusion): string {
    return [...conclusion.absent.map(({ rule }) => `the deviation ${rule} did not happen`), inWords(conclusion)]
      .map(comment)
      .join('');
  }
}

/** The counts, in a sentence. */
export function inWords({ results, conforms }: Conclusion): string {
  const count = (verdict: Result['verdict']): number => results.filter((result) => result.verdict === verdict).length;
  const counts = `${count('kept')} kept, ${count('broken')} broken, ${count('deviates')} known deviations, ${count('not tried')} not tried`;
  const gone = results.filter(({ isGone }) => isGone === true).length;
  if (gone > 0) return `${counts}, ${gone} of them as the device was gone`;
  if (conforms || count('broken') > 0) return counts;
  return `${counts}: the device failed where no rule says by what`;
}

/** Of a description: what would begin a directive. */
function escaped(text: string): string {
  return oneLine(text)
    .replaceAll('\\', '\\\\')
    .replaceAll('#', String.raw`\#`);
}

function oneLine(text: string): string {
  // oxlint-disable-next-line no-control-regex -- a message may have anything in it
  return text.replaceAll(/[\u0000-\u001F\u007F]+/g, ' ');
}

function comment(text: string): string {
  return `# ${oneLine(text)}\n`;
}

/** A YAML block: its texts are strings of JSON, which YAML takes. */
function details(fields: readonly (readonly [string, string])[]): string {
  return `  ---\n${fields.map(([name, text]) => `  ${name}: ${JSON.stringify(text)}\n`).join('')}  ...\n`;
}
