/*
 * A reader of the XML that pictures are made of, which is strict: elements, attributes in double quotes, text. Throws what is wrong.
 */

export interface Element {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
}

const TOKEN = /<(\/?)([a-z]+)((?: [A-Za-z:-]+="[^"<]*")*)(\/?)>|([^<]+)/gy;
const REFERENCE = /&(?!(?:amp|lt|gt|quot|#39);)/;
/** What XML 1.0 has no character for ("Char"). */
// oxlint-disable-next-line no-control-regex -- these are what is looked for
const NO_CHARACTER = /[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]|\p{Surrogate}/u;

/** All elements, in the order in which they begin. */
export function elementsOf(markup: string): Element[] {
  return tokensOf(markup).flatMap((token) => (typeof token === 'string' ? [] : [token]));
}

/** What stands between tags, as it is meant. */
export function textsOf(markup: string): string[] {
  return tokensOf(markup).flatMap((token) => (typeof token === 'string' ? [meant(token)] : []));
}

function tokensOf(markup: string): (Element | string)[] {
  const open: string[] = [];
  const tokens: (Element | string)[] = [];
  let at = 0;
  for (const [whole, close, name = '', attributes = '', empty, text] of markup.matchAll(TOKEN)) {
    at += whole.length;
    const wrong = REFERENCE.exec(text ?? attributes) ?? NO_CHARACTER.exec(whole);
    if (wrong !== null) throw new Error(`no character data: ${JSON.stringify(whole.slice(0, 200))}`);
    if (text !== undefined) tokens.push(text);
    else if (close === '') {
      tokens.push({ name, attributes: attributesOf(attributes) });
      if (empty === '') open.push(name);
    } else if (open.pop() !== name) throw new Error(`</${name}> closes nothing`);
  }
  if (at !== markup.length) throw new Error(`no markup: ${JSON.stringify(markup.slice(at, at + 200))}`);
  if (open.length > 0) throw new Error(`never closed: ${open.join(' ')}`);
  return tokens;
}

function attributesOf(text: string): Record<string, string> {
  const found = Array.from(
    text.matchAll(/ ([^=]+)="([^"]*)"/g),
    ([, name = '', value = '']) => [name, meant(value)] as const,
  );
  if (new Set(found.map(([name]) => name)).size !== found.length) throw new Error(`an attribute twice:${text}`);
  return Object.fromEntries(found);
}

function meant(text: string): string {
  return text
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&amp;', '&');
}
