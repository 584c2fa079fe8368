import { escaped } from './escape.ts';

type Attributes = Readonly<Record<string, string | number>>;

/** An element of SVG; `content` is markup. */
export function element(name: string, attributes: Attributes, ...content: readonly string[]): string {
  const shown = Object.entries(attributes).map(
    ([key, value]) => ` ${key}="${escaped(String(typeof value === 'number' ? rounded(value) : value))}"`,
  );
  return content.length === 0
    ? `<${name}${shown.join('')}/>`
    : `<${name}${shown.join('')}>${content.join('')}</${name}>`;
}

/** Text at a place: whatever it says. */
export function label(x: number, y: number, text: string, attributes: Attributes = {}): string {
  return element('text', { x, y, ...attributes }, escaped(text));
}

/** What a browser shows if the pointer is on the element that this is in. */
export function hint(text: string): string {
  return element('title', {}, escaped(text));
}

/** As many digits as a screen can show. */
export function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}
